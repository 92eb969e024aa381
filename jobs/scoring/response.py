"""From a response to its score: clean it, find the answer in it, let the rule look. It knows strings, not rows.

Whether an answer was cut off is its caller's to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.scoring.clean import REASONING, after_marker, clean
from jobs.scoring.options.guess import guessed
from jobs.scoring.options.letters import letters_of
from jobs.scoring.rule import Gold, Verdict
from jobs.scoring.rules import CAPTIONS, KEPT, RULES


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

    def of_row(self, marker: str | None, guess_as: tuple[int, str] | None) -> "Reading":
        """Return it for one row: with the marker that its prompt has asked for, and how to guess its answer."""
        return replace(self, marker=marker, guess_as=guess_as)


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
    kept = clean(response, reading.reasoning, reading.end_tokens)
    answer = after_marker(kept, reading.marker)
    verdict = RULES[reading.rule](answer, gold)
    if reading.guess_as is not None and gold.choices:
        seed, name = reading.guess_as
        letters = letters_of(gold.choices)
        # MathVista's gold answers are the options' texts.
        options = gold.choices if gold.answers and gold.answers[0] not in letters else letters
        verdict = guessed(verdict, gold, run_seed=seed, sample_id=name, options=options)
    return {
        "response": response,
        "response_clean": kept,
        "parsed": verdict.parsed,
        "parse_status": "truncated" if is_truncated else verdict.status,
        "score": verdict.score if gold.answers else None,
        "rule": reading.rule,
        "other_scores": _others(answer, gold, reading.others),
    }


def chosen_response(index: int, gold: Gold, reading: Reading, text: str) -> Mapping[str, Any]:
    """Return the same columns where the likeliest of given continuations was chosen instead of an answer written."""
    letter = chr(ord("A") + index)
    verdict = Verdict(letter, "ok", float(letter == gold.answers[0]) if gold.answers else None)
    return {
        "response": text,
        "response_clean": text.strip(),
        "parsed": verdict.parsed,
        "parse_status": verdict.status,
        "score": verdict.score,
        "rule": reading.rule,
        "other_scores": [],
    }


def no_response(gold: Gold | None, reading: Reading) -> dict[str, Any]:
    """Return the same columns for a row that has no answer: 0 where there is something to be right about."""
    has_gold = gold is not None and bool(gold.answers)
    return {
        "response": None,
        "response_clean": None,
        "parsed": None,
        "parse_status": None,
        "score": 0.0 if has_gold and has_row_scores(reading.rule) else None,
        "rule": reading.rule,
        "other_scores": [],
    }


def has_row_scores(rule: str) -> bool:
    """Whether a rule gives each row a score of its own."""
    return rule not in (CAPTIONS, KEPT)


def _others(answer: str, gold: Gold, rules: Sequence[str]) -> list[dict[str, Any]]:
    if not gold.answers:
        return []
    return [{"rule": rule, "score": RULES[rule](answer, gold).score} for rule in rules]
