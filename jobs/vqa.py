"""Answer questions about images (or without one) and score the answers: the job, its columns and its numbers.

Rules stand in jobs/scoring; how a question is worded for one benchmark or another is a setting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from jobs.prompt import GREEDY, Prompt, ask, columns_of
from jobs.report.shown import Lines
from jobs.scoring.answers import exact
from jobs.scoring.clean import clean
from jobs.scoring.summary import scored, summarize_scores
from models.types import Answer, BadRequest, Request, Sampling
from pipeline.rows import kept_name
from pipeline.settings import Settings
from pipeline.sources import Source
from pipeline.units import ReadSettings

SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("response", pa.string()),
        ("response_clean", pa.string()),
        ("parsed", pa.string()),
        ("parse_status", pa.string()),
        ("score", pa.float64()),
        ("rule", pa.string()),
    ]
)


class VqaSettings(Settings):
    """What the vqa job can be told.

    Attributes:
        prompt: How a question is put; `{question}`, and any other `{column}`, is replaced by that column's text.
        template: Takes the chat template's place: plain text with `{image}` and `{question}` (the prompt).
        rule: How an answer is scored against the gold answers.
        benchmark: The name under which the score stands in the report.
        group_by: A column by whose values the score is also shown, e.g. `answer_type`.
    """

    kind: Literal["vqa"]
    prompt: Prompt = "{question}"
    template: str | None = None
    rule: Literal["exact/nocase_nopunct"] = "exact/nocase_nopunct"
    benchmark: str = "vqa"
    group_by: str | None = None

    def build(self) -> "VqaJob":
        """Return the job that does this."""
        return VqaJob(self)


@dataclass(frozen=True)
class VqaJob:
    """See pipeline.job.Job."""

    settings: VqaSettings
    kind: str = "vqa"
    has_text_only_rows: bool = True
    # A score over keys that stand for two questions would count one of them twice and the other never.
    needs_unique_keys: bool = True
    sampling: Sampling = GREEDY
    optional: Sequence[str] = ()
    picture: None = None
    check: None = None

    @property
    def template(self) -> str | None:
        """What takes the chat template's place."""
        return self.settings.template

    @property
    def schema(self) -> pa.Schema:
        """The question, its gold answers, the response at every step of reading it, and its score."""
        return SCHEMA

    @property
    def required(self) -> Sequence[str]:
        """The question, its answers, and whatever else the prompt and the report need."""
        group = [self.settings.group_by] if self.settings.group_by else []
        return list(dict.fromkeys(["question", "answers", *columns_of(self.settings.prompt), *group]))

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        """Read the one input that the run names."""
        return [Source("", read)]

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        """Take rows as they are."""
        return rows

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        """Ask this row's question of its images.

        Raises:
            BadRequest: The question, or another column of the prompt, is empty.
        """
        if not str(row.get("question") or "").strip():
            raise BadRequest("found no text in column `question`, expected a question")
        return [ask(self.settings.prompt, row, sampling)]

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        """Keep the raw response, what was read from it, and its score: 0 for a row that failed.

        Without gold answers the score is null.
        """
        answers = gold_answers(row.get("answers"))
        question = row.get("question")
        record = {
            "question": None if question is None else str(question),
            "answers": answers,
            "rule": self.settings.rule,
        }
        if answer is None:
            return {**record, "score": 0.0 if answers else None}
        kept = clean(answer.text)
        return {
            **record,
            "response": answer.text,
            "response_clean": kept,
            "parsed": exact.normalize(kept),
            "parse_status": _parse_status(answer, kept),
            "score": exact.score(kept, answers) if answers else None,
        }

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Return the benchmark's score with its interval, and by group."""
        return {"scores": {self.settings.benchmark: summarize_scores(self.settings.rule, results)}}

    @property
    def title(self) -> str:
        """The headline of the report."""
        return f"Answers: {self.settings.benchmark}"

    def shown(self, row: Mapping[str, Any]) -> Lines:
        """Show the question, the answer, and the gold answers where they are known."""
        lines = [("question", row["question"]), ("answer", row["response"] or "(nothing)")]
        return [*lines, ("gold", " / ".join(row["answers"]))] if row["answers"] else lines

    def summarized(self, columns: Sequence[str]) -> Sequence[str]:
        """Look at scores, at how answers ended, and at the groups."""
        group_by = self.settings.group_by
        return ["score", "error", "finish_reason", *([kept_name(columns, group_by)] if group_by else [])]

    def narrow(self, results: pa.Table) -> pa.Table:
        """Keep each row's score, and what is counted beside it."""
        group_by = self.settings.group_by
        return scored(
            results["score"],
            is_failed=results["error"].is_valid(),
            is_truncated=pc.equal(results["finish_reason"], "length"),
            group=results[kept_name(results.column_names, group_by)] if group_by else None,
        )

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Say which rows have a full score."""
        return [None if score is None else score == 1.0 for score in results["score"].to_pylist()]


def gold_answers(value: Any) -> list[str] | None:
    """Return a row's gold answers as a list: given as one string or as a list, or not at all."""
    if value is None:
        return None
    answers = [value] if not isinstance(value, list | tuple) else [one for one in value if one is not None]
    return [str(one) for one in answers]


def _parse_status(answer: Answer, kept: str) -> str:
    if answer.finish == "length":
        return "truncated"
    return "ok" if kept else "empty"
