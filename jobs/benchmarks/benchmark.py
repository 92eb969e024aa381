"""What a published data set carries: its columns, its questions, its prompt templates, its rule and its aggregation.

The data sets themselves stand in jobs/benchmarks/datasets. Here rows are plain values, without images.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, NamedTuple

import pyarrow as pa

from jobs.benchmarks.row import BadRow, Row, groups_of
from jobs.prompt import FIELD
from models.types import ImageSettings


@dataclass(frozen=True)
class Item:
    """One question, in our words whatever its data set calls them.

    Attributes:
        question: As the data set has it; `<image k>` stands where the row's k-th image belongs, if it does at all.
        answers: The gold answers as stored; an option's is its letter. None where they are hidden.
        choices: The options' texts in order, the first one being A; empty for an open question.
        context: What a prompt puts before the question: a hint, or a video's frames (`<image k>`) and subtitles.
        groups: Under which groups of which breakdowns the row is counted, e.g. ("answer_type", "yes/no"); a row may be
            in several groups of one breakdown.
        cluster: What rows share that are not independent of each other: an image, a document, a video.
        facts: What else the rule, the aggregation or a submission needs, under the data set's names; values that JSON
            has.
    """

    question: str
    answers: tuple[str, ...] | None
    choices: tuple[str, ...] = ()
    context: str = ""
    groups: tuple[tuple[str, str], ...] = ()
    cluster: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> str:
        """The options on lines of their own, each after its letter; an option without a text is left out."""
        lettered = zip(ascii_uppercase, self.choices, strict=False)
        return "\n".join(f"{letter}. {option}" for letter, option in lettered if option)

    def with_options(self, question: str | None = None) -> str:
        """Return the question, or another text in its place, with the options under it."""
        text = self.question if question is None else question
        return f"{text}\n{self.options}" if self.options else text


def question_from(
    *,
    answers: Callable[[Row, str], tuple[str, ...] | None] = Row.gold_answers,
    groups: Sequence[str] = (),
    group_lists: Sequence[str] = (),
    cluster: str | None = None,
    facts: Mapping[str, Callable[[Row, str], Any]] = {},
) -> Callable[[Row], Item]:
    """Return what reads a question with gold answers from the columns `question` and `answers`.

    Args:
        answers: Reads the gold answers.
        groups: Columns of text, each of which is a breakdown.
        group_lists: Columns with lists of texts, each of which is a breakdown.
        cluster: The column that names what rows share.
        facts: The columns to keep, and what reads each.
    """

    def to_item(row: Row) -> Item:
        kept = {column: read(row, column) for column, read in facts.items()}
        from_lists = [group for column in group_lists for group in groups_of(column, row.texts_or_none(column))]
        return Item(
            question=row.text("question"),
            answers=answers(row, "answers"),
            groups=(*row.groups(*groups), *from_lists),
            cluster=None if cluster is None else str(kept[cluster] if cluster in kept else row.text(cluster)),
            facts=kept,
        )

    return to_item


def fill(template: str, item: Item, **more: str) -> str:
    """Put a question into a template.

    `{question}`, `{context}`, `{options}` (lines such as `A. text`) and the item's facts by their names are filled in;
    a list's members are joined by `, `. Nothing else in braces is looked up.

    Raises:
        BadRow: The template names something that this question does not have.
    """
    known = {**item.facts, "question": item.question, "context": item.context, "options": item.options, **more}

    def value(match: re.Match[str]) -> str:
        fact = known.get(match[1])
        if fact is None:
            names = ", ".join(name for name, value in known.items() if value is not None)
            raise BadRow(f"found {{{match[1]}}} in the template, expected one of {names}")
        return ", ".join(map(str, fact)) if isinstance(fact, list | tuple) else str(fact)

    return FIELD.sub(value, template)


class PromptTemplate(NamedTuple):
    """How the questions of one data set are put to a model.

    Attributes:
        text: A template for `fill`, in which `{question_with_options}` is known too; or a function of an item. Where
            rows may have several images, `<image k>` in the result stands for the k-th; images without such a mark
            stand before the text.
        max_new_tokens: The longest answer.
        marker: The answer is what follows the last of these, where the text asks for one.
        images: What it wants of the images; None, or a setting that is None, leaves them as the run has them.
    """

    text: str | Callable[[Item], str]
    max_new_tokens: int
    marker: str | None = None
    images: ImageSettings | None = None

    def render(self, item: Item) -> str:
        """Return the text that asks one question."""
        if isinstance(self.text, str):
            return fill(self.text, item, question_with_options=item.with_options())
        return self.text(item)


@dataclass(frozen=True)
class Aggregation:
    """How the rows of a benchmark become its first number, where that is no mean over rows.

    Attributes:
        headline: Returns what takes the place of a mean's `metric, score, se, low, high, interval`, and further
            `metrics`, of the rows that jobs/benchmarks/totals.py keeps, under a rule and with or without METEOR.
        merge: Makes one row of those that count as one, e.g. the rotations of a question; None where each counts.
        has_meteor: Whether METEOR can be one of the further metrics.
    """

    headline: Callable[[pa.Table, str, bool], dict[str, Any]]
    merge: Callable[[pa.Table], pa.Table] | None = None
    has_meteor: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A published data set, or one of its splits.

    Attributes:
        key: Its name here, e.g. `docvqa_val`.
        to_item: Turns a row, by the data set's own column names, into a question. Raises BadRow.
        needed: The columns that `to_item` cannot do without.
        used: Those that it looks at where they are there (a test split has no answers).
        key_column: The column that names a row; None if the data set has none: then the row's place is its name.
        images: The columns that hold a row's images, in order; empty for questions in words only.
        rule: The id of the default rule.
        other_rules: Other rules in use for it, that its report may show beside.
        prompts: Its prompt templates, each under its preset (jobs/benchmarks/presets.py).
        video: The column that names a row's video.
        subtitles: The column that names the subtitles of a row's video.
        join: Of images that lie in a table of their own: the column there that holds what `images` names here, and the
            one with the images.
        aggregation: What its first number is; None means the mean over rows.
        has_continuations: Whether its questions name what may follow them (the fact `continuations`), so that rules of
            likelihood can score it.
        may_lack_images: Whether some questions have no image; elsewhere a row without one has lost it, and is an error.
    """

    key: str
    to_item: Callable[[Row], Item]
    needed: tuple[str, ...]
    rule: str
    prompts: Mapping[str, PromptTemplate]
    used: tuple[str, ...] = ()
    key_column: str | None = None
    images: tuple[str, ...] = ("image",)
    other_rules: tuple[str, ...] = ()
    video: str | None = None
    subtitles: str | None = None
    join: tuple[str, str] | None = None
    aggregation: Aggregation | None = None
    has_continuations: bool = False
    may_lack_images: bool = False

    @property
    def columns(self) -> set[str]:
        """All columns of the data set that are read."""
        others = (self.key_column, self.video, self.subtitles, *self.images, *(self.join or ()))
        return {*self.needed, *self.used, *(column for column in others if column is not None)}

    @property
    def has_image_marks(self) -> bool:
        """Whether `<image k>` stands for an image; where a row has one image at most it is mere text, as in MMStar."""
        return self.video is not None or len(self.images) > 1

    @property
    def has_image_table(self) -> bool:
        """Whether images lie in a table of their own, and not in other rows of the same one."""
        return self.join is not None and self.join[1] not in self.images
