"""What the processors of all families share: the tokenizer, where an answer ends, and what of its ids is shown.

What is asked, and what becomes of images, each family knows by itself.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from models.tokenizer import ChatTokenizer, cut_at_stop
from models.types import Answer, Completion, ModelInput, Sampling


class FamilyProcessor:
    """The CPU half of a family but for `prepare`; see models.types.Processor."""

    def __init__(
        self,
        text: ChatTokenizer,
        eos_ids: Iterable[int],
        end_of_turn: str,
        *,
        max_position_embeddings: int,
        without_vision: str | None,
        pixels_per_code: int | None = None,
    ) -> None:
        """Keep what is common, and collect what ends an answer.

        Args:
            text: The checkpoint's tokenizer.
            eos_ids: Ids that the checkpoint says end an answer.
            end_of_turn: What the family writes after each message; it may be one token, several, or foreign.
            max_position_embeddings: The longest sequence that the model was made for.
            without_vision: What has no vision encoder, for messages; None if there is one.
            pixels_per_code: Side of what a code of a drawn picture stands for; None for families that draw nothing.
        """
        self.max_position_embeddings = max_position_embeddings
        self.sees_images = without_vision is None
        self.pixels_per_code = pixels_per_code
        self._without_vision = without_vision
        self._tokenizer = text
        end = text.token_id(end_of_turn)
        self.stop_ids = frozenset(eos_ids) | (frozenset() if end is None else {end})
        # Some tokenizers spell the end of a turn in several tokens; then only its text can be seen.
        self._spelled = (end_of_turn,) if end is None else ()

    def stop_condition(self, sampling: Sampling) -> Callable[[Sequence[int]], bool] | None:
        """Return the test for stop strings; see models.types.Processor."""
        return self._tokenizer.stop_condition((*sampling.stop, *self._spelled))

    def to_answer(self, model_input: ModelInput, completion: Completion, sampling: Sampling) -> Answer:
        """Turn emitted ids back into text; see models.types.Processor."""
        ids = completion.token_ids
        shown = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        answer = Answer(
            text=cut_at_stop(self._tokenizer.decode(shown), (*sampling.stop, *self._spelled)),
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
