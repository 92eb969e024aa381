"""Answer questions about images (or without one) and score the answers: the job, its columns and its numbers.

The questions are those of published data sets (jobs/benchmarks) or of the user's own rows; rules stand in jobs/scoring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from jobs.benchmarks.items import COLUMN, ITEM, from_column, own_items, published_items
from jobs.benchmarks.settings import (
    AUTO,
    Benchmarks,
    BenchmarkSettings,
    Preset,
    Rule,
    dataset_of,
    entry_faults,
    source_of,
)
from jobs.benchmarks.task import Task, benchmark_task
from jobs.benchmarks.totals import COUNTED, DETAILS, Metric, narrowed, summarize
from jobs.plain_job import PlainJob
from jobs.prompt import Prompt, columns_of
from jobs.report.job import Lines
from jobs.scoring.response import REASONING, Reading
from jobs.scoring.rules import LIKELIHOOD, suits
from jobs.scoring.rules.text_match import EXACT
from models.types import Answer, BadRequest, Request, Sampling
from pipeline import MESSAGES, ReadSettings, Settings, Source

SCHEMA = pa.schema(
    [
        *ITEM,
        ("preset", pa.string()),
        ("response", pa.string()),
        ("response_clean", pa.string()),
        ("parsed", pa.string()),
        ("parse_status", pa.string()),
        ("score", pa.float64()),
        ("rule", pa.string()),
        ("other_scores", pa.list_(pa.struct([("rule", pa.string()), ("score", pa.float64())]))),
        ("choice_logprobs", pa.list_(pa.float64())),
    ]
)

# An empty one would stand everywhere.
Tag = Annotated[str, Field(min_length=1)]
# Settings of rows of the user's own; a published data set brings its own instead.
OF_OWN_ROWS = ("prompt", "rule", "benchmark", "group_by", "cluster_by")


class VqaSettings(Settings):
    """What the vqa job can be told: about rows of your own, or about published data sets."""

    kind: Literal["vqa"] = Field(description="questions about every row's images, each answer scored")
    prompt: Prompt = Field(
        default="{question}",
        description="how a question of your own is put; {question}, and any other {column}, is replaced by that "
        "column's text; of a conversation it stands around the last turn's text",
    )
    template: str | None = Field(
        default=None,
        description="takes the chat template's place: plain text with {image} and {question} (the prompt)",
    )
    rule: Rule = Field(
        default=EXACT, description="how answers to your own questions are scored; `triptych list rules` names them"
    )
    benchmark: str = Field(default="vqa", description="the name under which their score stands in the report")
    group_by: str | None = Field(
        default=None, description="a column by whose values the score is also shown, such as answer_type"
    )
    cluster_by: str | None = Field(
        default=None,
        description="a column that names what rows share, such as an image: rows that hang together make a score less "
        "sure",
    )
    benchmarks: Benchmarks = Field(
        default={}, description="published data sets instead of rows of your own, all asked in one run: a name of each"
    )
    preset: Preset = Field(
        default=AUTO,
        description="whose wording the data sets are asked in: only a published number's own is comparable with it; "
        "auto: that of the model's authors",
    )
    reasoning: tuple[Tag, Tag] = Field(
        default=REASONING,
        description="what opens and closes a model's reasoning, which is left out before the answer is read",
    )
    fallback: Literal["none", "random"] = Field(
        default="none",
        description="what becomes of an answer in which no option is found: wrong, or drawn at random as some official "
        "rules do it, by the row's own seed; it counts as not read either way",
    )

    @field_validator("rule")
    @classmethod
    def _of_own_rows(cls, rule: str) -> str:
        if rule in LIKELIHOOD or not suits(rule, EXACT):
            raise ValueError(f"found {rule}, which needs more than rows of your own say; expected one such as {EXACT}")
        return rule

    @field_validator("benchmarks")
    @classmethod
    def _are_data_sets(cls, benchmarks: Mapping[str, BenchmarkSettings]) -> Mapping[str, BenchmarkSettings]:
        faults = [fault for name, entry in benchmarks.items() for fault in entry_faults(name, entry)]
        if faults:
            raise ValueError("; ".join(faults))
        return benchmarks

    @model_validator(mode="after")
    def _one_kind_of_question(self) -> "VqaSettings":
        # Not whether they were given: frozen settings give all of them.
        defaults = {name: field.default for name, field in type(self).model_fields.items() if name in OF_OWN_ROWS}
        own = sorted(name for name, default in defaults.items() if getattr(self, name) != default)
        if self.benchmarks and own:
            raise ValueError(
                f"found benchmarks beside {', '.join(own)}, which are for rows of your own; each benchmark has its own "
                "settings of these below job.benchmarks"
            )
        if self.preset != AUTO and not self.benchmarks:
            raise ValueError(
                f"found preset {self.preset} without benchmarks; own rows are asked in the words of `prompt`"
            )
        return self

    def build(self) -> "VqaJob":
        """Return the job that does this."""
        return VqaJob(settings=self, template=self.template)


@dataclass(frozen=True, kw_only=True)
class VqaJob(PlainJob):
    """Questions about the images of every row, and scores of the answers."""

    settings: VqaSettings
    kind: str = "vqa"
    text_column: str = "response_clean"
    has_text_only_rows: bool = True
    expects_images: bool = True
    # Where there is none, or nothing in it, gold answers are hidden: then rows are asked and not scored.
    optional: Sequence[str] = ("answers", MESSAGES)
    # A score over keys that stand for two questions would count one of them twice and the other never.
    needs_unique_keys: bool = True

    @property
    def schema(self) -> pa.Schema:
        """The question, its gold answers, the response at every step of reading it, and its score."""
        return SCHEMA

    @property
    def required(self) -> Sequence[str]:
        """The question, and whatever else the prompt and the report need; `adapt` looks after its own."""
        if self.settings.benchmarks:
            return []
        named = (self.settings.group_by, self.settings.cluster_by)
        return list(dict.fromkeys(["question", *columns_of(self.settings.prompt), *filter(None, named)]))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What is asked about, under the names that the report has, and what the first number of each is."""
        settings = self.settings
        if not settings.benchmarks:
            return {settings.benchmark: Metric(settings.rule)}
        metrics = {}
        for name, entry in settings.benchmarks.items():
            benchmark = dataset_of(name, entry)
            metrics[name] = Metric(entry.rule or benchmark.rule, benchmark.aggregation, entry.meteor)
        return metrics

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        """Read the one input that the run names, or each of its data sets below there."""
        if not self.settings.benchmarks:
            return super().sources(read)
        return [source_of(name, entry, read) for name, entry in self.settings.benchmarks.items()]

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        """Put a question in our words beside each row; of a published data set's rows nothing else is kept."""
        if not self.settings.benchmarks:
            return own_items(self.settings.benchmark, self.settings.group_by, self.settings.cluster_by, rows)
        entry = self.settings.benchmarks[source]
        return published_items(source, dataset_of(source, entry), entry.columns, rows)

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        """Ask this row's question of its images.

        Raises:
            BadRequest: The question, or another column of the prompt, is empty, or an image is missing.
        """
        item = from_column(row[COLUMN])
        if not item.question.strip() and not row.get(MESSAGES):
            raise BadRequest("found no text in column `question`, expected a question")
        return [self.task(row[COLUMN]["benchmark"]).request(row, item, sampling)]

    def task(self, name: str) -> Task:
        """Return what is asked under a name."""
        settings = self.settings
        can_guess = settings.fallback == "random"
        if not settings.benchmarks:
            return Task(settings.prompt, Reading(settings.rule, reasoning=settings.reasoning), can_guess=can_guess)
        entry = settings.benchmarks[name]
        benchmark = dataset_of(name, entry)
        rule = entry.rule or benchmark.rule
        rules = (benchmark.rule, *benchmark.other_rules)
        others = [other for other in rules if other not in LIKELIHOOD and other != rule]
        reading = Reading(rule, others, reasoning=settings.reasoning)
        return benchmark_task(benchmark, entry, settings.preset, reading, can_guess=can_guess)

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        """Keep the raw response, what was read from it, and its score: 0 for a row that failed.

        Without gold answers the score is null.
        """
        value = row[COLUMN]
        task = self.task(value["benchmark"])
        item = None if value.get("row_hash") is None else from_column(value)
        return {
            **{field.name: value.get(field.name) for field in ITEM},
            "preset": task.preset,
            **task.read(item, answer, row["key"], sampling.seed),
        }

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Return each benchmark's score with its interval, and by group; none for rows of one's own without answers."""
        scores = summarize(results, self.metrics)
        return {"scores": {name: score for name, score in scores.items() if score["n"] or self.settings.benchmarks}}

    @property
    def title(self) -> str:
        """The headline of the report."""
        return f"Answers: {', '.join(self.metrics)}"

    def card_lines(self, row: Mapping[str, Any]) -> Lines:
        """Show the question, the answer, and the gold answers where they are known."""
        lines = [("question", row["question"]), ("answer", row["response"] or "(nothing)")]
        if row["context"] and not self.settings.benchmarks:
            lines.insert(0, ("before", row["context"]))
        if row["choices"]:
            options = [f"{chr(ord('A') + index)}. {option}" for index, option in enumerate(row["choices"])]
            lines.insert(-1, ("options", ", ".join(options)))
        if row["parsed"] is not None and row["parsed"] != row["response"]:
            lines.append(("read as", row["parsed"]))
        return [*lines, ("gold", " / ".join(dict.fromkeys(row["answers"])))] if row["answers"] else lines

    def summary_columns(self, columns: Sequence[str]) -> Sequence[str]:
        """Look at scores, at how answers ended, and at the groups."""
        return (*COUNTED, *DETAILS) if self._detailed else COUNTED

    def summary_rows(self, results: pa.Table) -> pa.Table:
        """Keep each row's score, and what is counted beside it."""
        return narrowed(results, self._detailed)

    @property
    def _detailed(self) -> frozenset[str]:
        """The benchmarks whose first number is no mean over rows."""
        return frozenset(name for name, metric in self.metrics.items() if metric.aggregation is not None)

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Say which rows have a full score."""
        return [None if score is None else score == 1.0 for score in results["score"].to_pylist()]
