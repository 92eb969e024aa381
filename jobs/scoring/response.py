"""Score a raw response: clean it, find the answer in it, apply the rule, and return the columns that are stored.

It knows strings, not rows. The caller says whether an answer was cut off.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.scoring.rule import Gold, RuleResult
from jobs.scoring.rules import RULES, has_row_scores
from jobs.scoring.rules.letters import letters_of

# What opens and closes a model's reasoning, where a run does not say otherwise.
REASONING = ("<think>", "</think>")


@dataclass(frozen=True)
class Reading:
    """How a response is read.

    Attributes:
        rule: The id of the rule that gives the score.
        others: Ids of rules whose scores stand beside it.
        marker: The answer is what follows the last of these, whatever its case, where the prompt has asked for one.
        reasoning: What opens and closes a model's reasoning.
        end_tokens: What may stand at the end of stored responses.
        guess_as: The seed and the row's name by which a random option is taken where none could be read, as some
            official rules do; None leaves such answers wrong. The status says `failed` either way.
    """

    rule: str
    others: Sequence[str] = ()
    marker: str | None = None
    reasoning: tuple[str, str] = REASONING
    end_tokens: Sequence[str] = ()
    guess_as: tuple[int, str] | None = None


def read_response(response: str, gold: Gold, reading: Reading, *, is_truncated: bool) -> dict[str, Any]:
    """Return the columns `response` to `other_scores` for one response.

    Without gold answers it is read all the same and has no score. An answer that ran into its limit has the status
    `truncated`, whatever a rule has found in it, and the rule's score.

    Args:
        response: As the model gave it.
        gold: What is right, and what else the rule looks at; its answers are empty where they are hidden.
        reading: How to read it.
        is_truncated: Whether it ran into its limit of tokens.
    """
    cleaned = clean(response, reading.reasoning, reading.end_tokens)
    answer = after_marker(cleaned, reading.marker)
    result = RULES[reading.rule](answer, gold)
    if reading.guess_as is not None and result.status == "failed" and gold.choices:
        result = guess(gold, *reading.guess_as)
    others = [{"rule": rule, "score": RULES[rule](answer, gold).score} for rule in reading.others if gold.answers]
    columns = _columns(response, cleaned, result, reading.rule, others)
    return columns | {"parse_status": "truncated"} if is_truncated else columns


def read_choice(
    logprobs: Sequence[float], continuations: Sequence[str], gold: Gold, reading: Reading
) -> dict[str, Any]:
    """Return the same columns where the likeliest of given continuations is the answer, and nothing was written.

    Args:
        logprobs: Each continuation's log-probability.
        continuations: As the data set has them, without a blank that joins them to the prompt.
        gold: Its first answer is the right continuation's letter.
        reading: One of the rules `likelihood/...`.
    """
    index = likeliest(logprobs, continuations, per_character=reading.rule == "likelihood/per_character")
    letter, text = chr(ord("A") + index), continuations[index]
    result = RuleResult(letter, "ok", float(letter == gold.answers[0]) if gold.answers else None)
    return _columns(text, text.strip(), result, reading.rule)


def no_response(gold: Gold | None, reading: Reading) -> dict[str, Any]:
    """Return the same columns for a row that has no answer: 0 where there is a gold answer."""
    is_wrong = gold is not None and bool(gold.answers) and has_row_scores(reading.rule)
    nothing = RuleResult(None, "failed", 0.0 if is_wrong else None)
    return _columns(None, None, nothing, reading.rule) | {"parse_status": None}


def _columns(
    response: str | None, cleaned: str | None, result: RuleResult, rule: str, others: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    return {
        "response": response,
        "response_clean": cleaned,
        "parsed": result.parsed,
        "parse_status": result.status,
        "score": result.score,
        "rule": rule,
        "other_scores": list(others),
    }


def clean(response: str, reasoning: tuple[str, str] = REASONING, end_tokens: Sequence[str] = ()) -> str:
    """Drop text between the reasoning's tags and the model's end tokens, then strip white space around.

    If only the closing tag occurs, what follows the last one is kept; an opening tag without its end stays.

    Args:
        response: The raw response.
        reasoning: The opening and the closing tag.
        end_tokens: What may stand at the end of responses that another tool has stored; our own have none.
    """
    kept = _without_reasoning(response, *reasoning).rpartition(reasoning[1])[2].rstrip()
    while end := next((token for token in end_tokens if token and kept.endswith(token)), None):
        kept = kept.removesuffix(end).rstrip()
    return kept.strip()


def after_marker(text: str, marker: str | None) -> str:
    """Return what follows the last marker, whatever its case; the whole text if there is none, or nothing to look for.

    Prompts that ask for step-by-step reasoning name such a marker, e.g. `FINAL ANSWER:`. Where a model has written it
    in bold, as `**FINAL ANSWER:** B` or `**FINAL ANSWER: B**`, the asterisks are no part of the answer.
    """
    if marker is None:
        return text
    start = text.casefold().rfind(marker.casefold()) if text.isascii() else _last(text, marker)
    if start < 0:
        return text
    answer = text[start + len(marker) :].strip()
    return answer.strip("*").strip() if text[:start].endswith("*") else answer


def likeliest(logprobs: Sequence[float], continuations: Sequence[str], *, per_character: bool) -> int:
    """Return the index of the likeliest continuation, the first one of those that are equally likely.

    Source: lm-evaluation-harness 4e7e0d4, `acc` and `acc_norm`.

    Args:
        logprobs: Each continuation's log-probability, summed over its tokens.
        continuations: The continuations.
        per_character: Divide by the number of characters (their `acc_norm`) instead of taking the sums (their `acc`).

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


def guess(gold: Gold, seed: int, row: str) -> RuleResult:
    """Return a random option in place of an answer that could not be read; it still counts as `failed`.

    It depends on the seed and the row's name alone, never on the order of rows.
    """
    letters = letters_of(gold.choices)
    # MathVista's gold answers are the options' texts.
    options = gold.choices if gold.answers and gold.answers[0] not in letters else letters
    digest = hashlib.blake2b(f"{seed}\0{row}".encode(), digest_size=16).digest()
    option = options[int.from_bytes(digest, "big") % len(options)]
    return RuleResult(option, "failed", float(option in gold.answers) if gold.answers else None)


def _without_reasoning(text: str, opening: str, closing: str) -> str:
    """Cut out each stretch from an opening tag to the next closing one."""
    pieces: list[str] = []
    while True:
        before, tag, rest = text.partition(opening)
        _, end, after = rest.partition(closing)
        if not tag or not end:
            return "".join([*pieces, text])
        pieces.append(before)
        text = after


def _last(text: str, marker: str) -> int:
    """Find the last marker where changing the case of other letters may change the text's length."""
    wanted, length = marker.casefold(), len(marker)
    starts = range(len(text) - length, -1, -1)
    return next((start for start in starts if text[start : start + length].casefold() == wanted), -1)
