"""What a scoring rule is: a pure function of a response and of what is known to be right. It knows strings only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

# `truncated`, the fifth word of the column `parse_status`, is no rule's finding: the answer ran into its token limit.
Status = Literal["ok", "failed", "refused", "empty"]


@dataclass(frozen=True)
class Gold:
    """What a rule may know of a row beside the response.

    Attributes:
        answers: The gold answers as the data set stores them, in order; an option's gold answer is its letter.
        choices: The options' texts in order, the first one being A; empty for an open question.
        facts: What else the benchmark's rule looks at, by the names that the data set gives it, e.g. `precision`.
    """

    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a rule makes of a response.

    Attributes:
        parsed: What was read from the response, e.g. an option's letter; None if nothing could be.
        status: Whether reading it went well. No rule guesses: where an official one picks at random it is `failed`.
        score: 0 to 1; None if it says nothing by itself (a caption's, which only a whole set has).
    """

    parsed: str | None
    status: Status
    score: float | None


# The response is cleaned (jobs/scoring/clean.py) before a rule sees it.
Rule: TypeAlias = Callable[[str, Gold], Verdict]
