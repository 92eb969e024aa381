"""The interface of scoring rules: pure functions of a response and its gold answers. It knows strings only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

# The column `parse_status` has a fifth word, `truncated`: the answer ran into its token limit. No rule gives it.
Status = Literal["ok", "failed", "refused", "empty"]


@dataclass(frozen=True)
class Gold:
    """What a rule may know of a row besides the response.

    Attributes:
        answers: The gold answers as the data set stores them, in order; an option's gold answer is its letter.
        choices: The options' texts in order, the first one being A; empty for an open question.
        facts: What else the benchmark's rule looks at, by the names that the data set gives it, e.g. `precision`.
    """

    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleResult:
    """What a rule makes of a response.

    Attributes:
        parsed: What was read from the response, e.g. an option's letter; None if nothing could be.
        status: Whether reading it went well. No rule guesses: where an official one picks at random it is `failed`.
        score: 0 to 1; None without gold answers, and where only a whole set has a score (captions).
    """

    parsed: str | None
    status: Status
    score: float | None


# The response is cleaned (`clean` of jobs/scoring/response.py) before a rule sees it:
# no white space stands around it.
Rule: TypeAlias = Callable[[str, Gold], RuleResult]


def rule_result(response: str, parsed: str | None, gold: Gold, score: float) -> RuleResult:
    """Return a rule's result; without gold answers it has no score: the response can be submitted, not scored.

    Args:
        response: An empty one has the status `empty`, whatever was read from it.
        parsed: What was read; None has the status `failed`.
        gold: What is known to be right.
        score: What the rule gives for it.
    """
    status: Status = "empty" if not response.strip() else "failed" if parsed is None else "ok"
    return RuleResult(parsed, status, score if gold.answers else None)
