"""Choose an option by how likely a model finds it, instead of by what it says.

It knows log-probabilities, not where they come from. Source: lm-evaluation-harness 4e7e0d4, `acc` and `acc_norm`.
"""

from collections.abc import Sequence


def choose(logprobs: Sequence[float], continuations: Sequence[str], *, per_character: bool) -> int:
    """Return the place of the likeliest continuation, the first one of those that are equally likely.

    Args:
        logprobs: Each continuation's log-probability, summed over its tokens.
        continuations: The continuations as the data set has them, without a blank that joins them to the prompt.
        per_character: Divide by the number of characters (`likelihood/per_character`, their `acc_norm`) instead of
            taking the sums (`likelihood/sum`, their `acc`).

    Raises:
        ValueError: There is no continuation, not one log-probability for each, or nothing to divide by.
    """
    if not continuations or len(logprobs) != len(continuations):
        raise ValueError(
            f"found {len(logprobs)} log-probabilities of {len(continuations)} continuations, expected one each"
        )
    if per_character and not all(continuations):
        raise ValueError(f"found an empty continuation among {list(continuations)!r}, expected characters to divide by")
    values = [
        logprob / len(continuation) if per_character else logprob
        for logprob, continuation in zip(logprobs, continuations, strict=True)
    ]
    return max(range(len(values)), key=values.__getitem__)
