"""Answer requests in one process, with any family's processor and model: `models.ask` when both are at hand.

It knows no family and no checkpoint; who calls it has loaded the one and says how to load the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from models.engine import Decoder, Engine, run_all
from models.engine import Sequence as Answering
from models.images import encode_image, group_by_image
from models.picture_decoder import PictureModel
from models.sampling import check_sampling
from models.types import Answer, BadRequest, PictureFormat, Processor, Request


def answer(
    requests: Sequence[Request], processor: Processor, load: Callable[[], Decoder], *, slots: int = 8
) -> list[Answer]:
    """Answer requests in the order given; see models.ask.

    Args:
        requests: What to ask.
        processor: The CPU half of a family.
        load: Loads the other half, once all requests are known to be good.
        slots: Requests answered at once.

    Raises:
        BadRequest: A request cannot be turned into a prompt, does not fit or samples by what cannot be; its place and
            key are named.
        RuntimeError: The engine failed on a request.
    """
    sequences = []
    for place, request in enumerate(requests):
        try:
            check_sampling(request.sampling)
            model_input = processor.prepare(request)
        except BadRequest as error:
            raise _with_request(place, request.key, error) from error
        stop_condition = processor.stop_condition(request.sampling)
        sequences.append(Answering(request.key, model_input, request.sampling, processor.stop_ids, stop_condition))
    if not sequences:
        return []
    longest = max(s.longest_prompt + s.most_new_tokens for s in sequences)
    model = load()
    max_length = min(longest, model.max_position_embeddings)
    branches = min(slots, len(sequences)) * max(s.num_branches for s in sequences)
    engine = Engine(model, slots=branches, max_length=max_length)
    run_all(engine, [sequences[place] for place in group_by_image([s.model_input.image_names for s in sequences])])
    return [_answer(processor, model, place, sequence) for place, sequence in enumerate(sequences)]


def _answer(processor: Processor, model: object, place: int, sequence: Answering) -> Answer:
    if sequence.error is not None:
        raise _with_request(place, sequence.key, sequence.error) from sequence.error
    model_input, completion = sequence.model_input, sequence.completion
    assert completion is not None
    if model_input.is_drawn and isinstance(model, PictureModel):
        pixels = model.decode_picture(model_input.layout, completion.token_ids)
        completion = replace(completion, image=encode_image(pixels, PictureFormat()))
    return processor.to_answer(model_input, completion, sequence.sampling)


def _with_request(place: int, key: str, error: Exception) -> Exception:
    """Return the error with its request's place and key; what is not the request's fault is a RuntimeError."""
    kind = type(error) if isinstance(error, BadRequest) else RuntimeError
    return kind(f"request {place} ({key!r}): {error}")
