"""Caption every row: one prompt, one text column. What may be true of a caption is a reference column's business."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from jobs.plain_job import PlainJob
from jobs.prompt import Prompt, columns_of, request_for
from jobs.report.job import Lines
from jobs.scoring.rules.text_match import EXACT, exact_match
from jobs.scoring.summary import score_table, summarize_scores
from models.types import Answer, Request, Sampling
from pipeline import Settings, kept_name


class CaptionSettings(Settings):
    """What the caption job can be told."""

    kind: Literal["caption"] = Field(description="one prompt about every row's images, one caption each")
    prompt: Prompt = Field(
        default="Describe this image.", description="asked of every row; {column} is replaced by that column's text"
    )
    template: str | None = Field(
        default=None,
        description="takes the chat template's place: plain text with {image} and {question} (the prompt)",
    )
    reference: str | None = Field(
        default=None,
        description="a column with the right caption, or a list of them, where it is known: exact matches are counted",
    )

    def build(self) -> "CaptionJob":
        """Return the job that does this."""
        return CaptionJob(settings=self, template=self.template)


@dataclass(frozen=True, kw_only=True)
class CaptionJob(PlainJob):
    """One prompt about the images of every row, and one column."""

    settings: CaptionSettings
    kind: str = "caption"
    text_column: str = "caption"
    expects_images: bool = True

    @property
    def schema(self) -> pa.Schema:
        """One column: `caption`, null for a row that failed."""
        return pa.schema([("caption", pa.string())])

    @property
    def required(self) -> Sequence[str]:
        """The columns named in the prompt, and the reference."""
        return [*columns_of(self.settings.prompt), *([self.settings.reference] if self.settings.reference else [])]

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        """Ask the prompt of this row's images."""
        return [request_for(self.settings.prompt, row, sampling)]

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        """Keep the caption, white space around it stripped."""
        return {"caption": None if answer is None else answer.text.strip()}

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Count exact matches with the reference column, if the run names one."""
        if self.settings.reference is None:
            return {}
        return {"scores": {self.kind: summarize_scores(EXACT, results)}}

    @property
    def title(self) -> str:
        """The headline of the report."""
        return "Captions"

    def card_lines(self, row: Mapping[str, Any]) -> Lines:
        """Show the caption, and the reference where it is known."""
        lines = [("", row["caption"] or "(nothing)")]
        reference = self.settings.reference and row[kept_name(row, self.settings.reference)]
        return [*lines, ("gold", " / ".join(_references(reference)))] if reference else lines

    def summary_columns(self, columns: Sequence[str]) -> Sequence[str]:
        """Look at captions only where something is known of them."""
        if self.settings.reference is None:
            return []
        return ["caption", "finish_reason", kept_name(columns, self.settings.reference)]

    def summary_rows(self, results: pa.Table) -> pa.Table:
        """Keep whether each caption is right, not what it says."""
        if self.settings.reference is None:
            return pa.table({})
        return score_table(
            pa.array(self.verdicts(results), pa.bool_()),
            is_failed=results["caption"].is_null(),
            is_truncated=pc.equal(results["finish_reason"], "length"),
        )

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Compare each caption with its reference, case and punctuation apart."""
        if self.settings.reference is None:
            return [None] * results.num_rows
        pairs = zip(
            results["caption"].to_pylist(),
            results[kept_name(results.column_names, self.settings.reference)].to_pylist(),
            strict=True,
        )
        golds = [(caption or "", _references(gold)) for caption, gold in pairs]
        return [exact_match(caption, references) == 1.0 if references else None for caption, references in golds]


def _references(gold: Any) -> list[str]:
    """Return the right captions of a row: one, several as in COCO, or none where nobody knows."""
    found = gold if isinstance(gold, list | tuple) else [gold]
    return [str(one) for one in found if one is not None]
