"""What the processors of all families share: the tokenizer, the image reader, where an answer ends, its text.

Each family turns requests into model inputs by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import takewhile
from typing import ClassVar, Generic, TypeVar

from models.config import FamilyConfig
from models.guard import RenderedPrompt
from models.image_reader import ImageReader, Transform
from models.tokenizer import ChatTokenizer, cut_at_stop
from models.types import Answer, Completion, ImageSettings, ModelInput, Request, Sampling, Tokenizer

R = TypeVar("R")


@dataclass(frozen=True)
class ProcessorOptions:
    """What a run asks of a processor; see models.load_processor."""

    images: ImageSettings
    template: str | None
    today: date
    text_only: bool
    tokenizer: Tokenizer


class FamilyProcessor(Generic[R]):
    """The CPU half of a family but for `prepare`; see models.types.Processor.

    Attributes:
        IMAGE_SETTINGS: The image settings that the family has, by their names in models.types.ImageSettings.
        stop_ids: Ids that end an answer: those that the checkpoint names, and the family's end of a turn.
    """

    IMAGE_SETTINGS: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        family: str,
        config: FamilyConfig,
        tokenizer: ChatTokenizer,
        end_of_turn: str,
        options: ProcessorOptions,
        *,
        make_transform: Callable[[ImageSettings], Transform[R]],
        pixels_per_code: int | None = None,
    ) -> None:
        """Keep what is common.

        Args:
            family: Its name.
            config: The checkpoint's.
            tokenizer: The checkpoint's.
            end_of_turn: What the family writes after each message; it may be one token, several, or foreign.
            options: The run's.
            make_transform: See ImageReader.
            pixels_per_code: See models.types.Processor.
        """
        self.max_position_embeddings = config.text.max_position_embeddings
        self.sees_images = config.vision is not None
        self.pixels_per_code = pixels_per_code
        without = "a model loaded with text_only" if options.text_only else "a checkpoint without a vision encoder"
        self._without_vision = None if self.sees_images else without
        self._tokenizer = tokenizer
        self._image_reader = ImageReader(
            family, self.IMAGE_SETTINGS, options.images, self._without_vision, make_transform
        )
        end = tokenizer.token_id(end_of_turn)
        self.stop_ids = config.eos_token_ids | (frozenset() if end is None else {end})
        # Some tokenizers spell the end of a turn in several tokens; then only its text can be seen.
        self._spelled = (end_of_turn,) if end is None else ()

    def _num_shared(
        self, request: Request, rendered: RenderedPrompt, ids: Sequence[int], image: int | None, bos: int | None = None
    ) -> int:
        """Return with how many of its ids other prompts begin, too; see Request.shared.

        Args:
            request: What is asked.
            rendered: Its prompt.
            ids: The prompt's, a placeholder for each image.
            image: The placeholder's.
            bos: See ChatTokenizer.encode.
        """
        if request.shared is None:
            return 0
        after_images = len(ids) - ids[::-1].index(image) if image in ids else 0
        # Blanks at its end may be a token together with what follows them.
        shared = request.shared.rstrip()
        start = rendered.text.find(shared)
        if start < 0 or not shared:
            return after_images
        begun = self._tokenizer.encode(rendered.first(start + len(shared)), bos)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(begun, ids, strict=False))
        return max(after_images, sum(1 for _ in same))

    @property
    def chat_fault(self) -> str | None:
        """Why messages cannot be asked; see models.types.Processor."""
        return self._tokenizer.chat_fault

    def stop_condition(self, sampling: Sampling) -> Callable[[Sequence[int]], bool] | None:
        """Return the test for stop strings; see models.types.Processor."""
        return self._tokenizer.stop_condition((*sampling.stop, *self._spelled))

    def to_answer(self, model_input: ModelInput, completion: Completion, sampling: Sampling) -> Answer:
        """Turn emitted ids back into text; see models.types.Processor."""
        ids = completion.token_ids
        shown = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        stop = (*sampling.stop, *self._spelled)
        text = cut_at_stop(self._tokenizer.decode(shown), stop)
        before = self._tokenizer.before_stop(ids, stop)
        answer = Answer(
            text=text if before is None else min(text, before, key=len),
            image=None,
            token_ids=ids,
            logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
            prompt_tokens=len(model_input.token_ids),
            image_tokens=model_input.image_tokens,
        )
        if not model_input.choices:
            return answer
        return replace(
            answer,
            # Blanks at the prompt's end are tokens of the choice, and some tokenizers leave out a text's first one.
            text=self._tokenizer.decode(ids).strip(),
            choice_logprobs=completion.choice_logprobs,
            choice_tokens=tuple(len(choice) for choice in model_input.choices),
        )
