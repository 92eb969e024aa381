"""What is known of a published data set: its columns, its questions in our words, the rule that scores them.

It holds no data set and no wording; those stand beside it. It knows rows as plain values, no images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Row = Mapping[str, Any]
Total = Literal["mean", "circular", "yes_no", "points", "subjects", "captions"]


class BadRow(ValueError):
    """A row of a data set is not what its adapter expects: what was found, what was expected, in which column."""


@dataclass(frozen=True)
class Item:
    """One question, in our words whatever its data set calls them.

    Attributes:
        question: As the data set has it; `<image k>` stands where the row's k-th image belongs, if it does at all.
        answers: The gold answers as stored; an option's is its letter. None where they are hidden.
        choices: The options' texts in order, the first one being A; empty for an open question.
        context: What a prompt puts before the question: a hint, or a video's frames (`<image k>`) and subtitles.
        groups: Under which cells of which breakdowns the row is counted, e.g. ("answer_type", "yes/no"); a row may have
            several cells of one breakdown.
        cluster: What rows share that are not independent of each other: an image, a document, a video.
        facts: What the rule, the totals or a submission needs beside, under the data set's names; values that JSON has.
    """

    question: str
    answers: tuple[str, ...] | None
    choices: tuple[str, ...] = ()
    context: str = ""
    groups: tuple[tuple[str, str], ...] = ()
    cluster: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A published data set.

    Attributes:
        key: Its name here, e.g. `docvqa_val`.
        item: Turns a row, by the data set's own column names, into a question. Raises BadRow.
        needed: The columns that `item` cannot do without.
        used: Those that it looks at where they are there (a test split has no answers).
        key_column: The column that names a row; None if the data set has none: then its place does.
        images: The columns that hold a row's images, in order; empty for questions in words only.
        rule: The id of the default rule.
        asked_as: Whose wording it has (jobs/benchmarks/prompts.py), e.g. `docvqa` for both of its splits.
        other_rules: Other rules in use for it, that its report may show beside.
        video: The column that names a row's video, and `subtitles` the one that names its subtitles.
        join: Of images that lie in a table of their own: the column there that holds what `images` names here, and the
            one with the images.
        total: What the headline is: the mean over rows; over questions of which every rotation is right (`circular`);
            the F1 of yes (`yes_no`); points of 1,000 (`points`); the mean over subjects beside that over rows
            (`subjects`); what captions have only all together (`captions`).
        has_continuations: Whether its questions name what may follow them (the fact `continuations`), so that rules of
            likelihood can score it.
        may_lack_images: Whether some questions have no image; elsewhere a row without one has lost it, and is an error.
    """

    key: str
    item: Callable[[Row], Item]
    needed: tuple[str, ...]
    rule: str
    asked_as: str
    used: tuple[str, ...] = ()
    key_column: str | None = None
    images: tuple[str, ...] = ("image",)
    other_rules: tuple[str, ...] = ()
    video: str | None = None
    subtitles: str | None = None
    join: tuple[str, str] | None = None
    total: Total = "mean"
    has_continuations: bool = False
    may_lack_images: bool = False
