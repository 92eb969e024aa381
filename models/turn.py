"""The model's turn of a conversation: where it ends, and what of the emitted ids is shown.

The families that answer in text share it. It does not know what was asked.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from models.text import Text, cut_at_stop
from models.types import Answer, Completion, ModelInput, Sampling


class Turn:
    """What ends an answer, at the id and in the text.

    Attributes:
        stop_ids: Any of them ends an answer.
    """

    def __init__(self, text: Text, eos_ids: Iterable[int], end_of_turn: str) -> None:
        """Collect the ends.

        Args:
            text: The checkpoint's tokenizer.
            eos_ids: Ids that the checkpoint says end an answer.
            end_of_turn: What the family writes after each message; it may be one token, several, or foreign.
        """
        self._text = text
        end = text.token_id(end_of_turn)
        self.stop_ids = frozenset(eos_ids) | (frozenset() if end is None else {end})
        # Some tokenizers spell the end of a turn in several tokens; then only its text can be seen.
        self._spelled = (end_of_turn,) if end is None else ()

    def stopper(self, sampling: Sampling) -> Callable[[Sequence[int]], bool] | None:
        """Return the test for stop strings; see models.types.Processor."""
        return self._text.stopper((*sampling.stop, *self._spelled))

    def finish(self, model_input: ModelInput, completion: Completion, sampling: Sampling) -> Answer:
        """Turn emitted ids back into text; see models.types.Processor."""
        ids = completion.token_ids
        shown = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        answer = Answer(
            text=cut_at_stop(self._text.decode(shown), (*sampling.stop, *self._spelled)),
            image=None,
            token_ids=ids,
            logprobs=completion.logprobs,
            finish=completion.finish,
            prompt_tokens=len(model_input.token_ids),
            image_tokens=model_input.image_tokens,
        )
        if not model_input.choices:
            return answer
        return replace(
            answer,
            # Blanks at the prompt's end are tokens of the choice, and some tokenizers leave out a text's first one.
            text=self._text.decode(ids).strip(),
            choice_logprobs=completion.choice_logprobs,
            choice_tokens=tuple(len(choice) for choice in model_input.choices),
        )
