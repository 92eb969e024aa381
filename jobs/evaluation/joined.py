"""Answers that another tool has stored, joined by id with the rows of a data set, whose images are left alone.

It knows data sets' rows and ids; how a response is read, the vqa job knows.
"""

import json
import logging
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.items import COLUMN
from jobs.config import RunSettings
from jobs.evaluation.answers import Answers, Piece, Reader, vqa_job
from jobs.evaluation.predictions import PLACES, Prediction, Predictions, read_predictions
from jobs.evaluation.rows import named
from jobs.report.results import ReportError
from jobs.vqa import VqaJob
from models.types import Answer
from pipeline import (
    ConfigError,
    InputPlan,
    MissingColumns,
    Part,
    Unit,
    check_settings,
    job_rows_schema,
    join_plans,
    kept_columns,
    lay_over,
    ledger,
    part_schema,
    plan_input,
    plan_parts,
    read_job_rows,
    row_seed,
    settings_by_source,
)

log = logging.getLogger(__name__)

# What models end their answers with, where nobody has taken it off: `<|eot_id|>`, `<|im_end|>`, `</s>`.
END_TOKEN = re.compile(r"(<\|[\w]+\|>|</s>)\Z")
MANY = 0.1
# The place of a row in the whole data, beside its columns.
PLACED = "job.place"
# A row group that is larger is decoded anew for each unit; but of other formats than Parquet a report reads whole units
# again for the images that it shows.
UNIT_ROWS = 2048
ROWS_PER_PART = 10_000
# No wording is known; the job wants one named, and this one leaves answers as they are.
NOWHERE = "images-not-given"
PLAIN_PRESET, UNKNOWN = "lmms", "unknown"
WITHOUT_A_MODEL = {"run": "", "device": "none", "check_device": "", "weights": ""}


@dataclass(frozen=True)
class Asked:
    """What somebody wants scored.

    Attributes:
        predictions: The file of the answers.
        data: Where the data set's shards lie: a file, a folder or a glob.
        benchmark: Which data set it is; None for rows of one's own with `question` and `answers`.
        rule: What to score by; None means the data set's own rule.
        preset: In whose wording the questions were asked, if that is known.
        id_name: The column of the ids; see predictions.py.
        response_name: The column of the answers.
        model: Who has answered, for the report.
        overrides: Of the settings that follow from all this.
        end_tokens: What may stand at the end of responses.
        allow_missing: Whether rows may lack an answer.
    """

    predictions: str
    data: str
    benchmark: str | None = None
    rule: str | None = None
    preset: str | None = None
    id_name: str | None = None
    response_name: str | None = None
    model: str | None = None
    overrides: Sequence[str] = ()
    end_tokens: Sequence[str] = ()
    allow_missing: bool = False


def answers_of(asked: Asked, to: str) -> Answers:
    """Join stored answers with the rows that they belong to.

    Args:
        asked: What is wanted.
        to: Where the scored rows are to stand.

    Raises:
        ReportError: Answers are missing, stand there twice, or belong to no row.
        ConfigError: What is asked for cannot be.
        StorageError: The answers or the data cannot be read.
    """
    settings = _settings(asked, to)
    job = vqa_job(settings)
    predictions = read_predictions(
        asked.predictions, settings.read.storage, id_name=asked.id_name, response_name=asked.response_name
    )
    _warn_of_ends(predictions, asked.end_tokens)
    plan, schema = _planned(settings, job)
    data = _Data(job, settings, plan.units, predictions)
    is_whole = data.check(allow_missing=asked.allow_missing)
    reader = Reader(job, asked.end_tokens)
    said = {
        "model": asked.model or posixpath.basename(asked.predictions.rstrip("/")),
        "preset": asked.preset or UNKNOWN,
    }
    run_seed = settings.generate.sampling.seed

    def pieces() -> Iterator[Piece]:
        for part in plan_parts(plan.units, ROWS_PER_PART):
            made = [_made(row, answer, reader, said, run_seed) for row, answer in data.answered(part)]
            if made:
                yield Piece(part.path, pa.Table.from_pylist(made, schema=schema))

    frozen = {**WITHOUT_A_MODEL, "versions": ledger.versions()}
    return Answers(settings, frozen, plan.units, plan.warnings, {}, is_whole, pieces)


def _warn_of_ends(predictions: Predictions, known: Sequence[str]) -> None:
    """Say so if many answers end in a model's own token, which no rule takes off."""
    texts = [answer.text.rstrip() for answer in predictions.answers.values() if answer is not None]
    ends = Counter(found[0] for text in texts if (found := END_TOKEN.search(text)) and found[0] not in known)
    for token, count in ends.items():
        if count > MANY * len(texts):
            log.warning("%d of %d answers end in %r; `--end-token '%s'` takes it off", count, len(texts), token, token)


def _settings(asked: Asked, to: str) -> RunSettings:
    """Return the settings of a run that would have asked these questions."""
    job: dict[str, Any] = {"kind": "vqa"}
    read: dict[str, Any] = {"uri": asked.data}
    if asked.benchmark:
        read["uri"], path = _folder_and_path(asked.data)
        job["benchmarks"] = {asked.benchmark: {"path": path, "rule": asked.rule, **_nowhere(asked.benchmark)}}
        job["preset"] = asked.preset or PLAIN_PRESET
    else:
        job |= {"rule": asked.rule} if asked.rule else {}
        read["columns"] = {"key": asked.id_name} if asked.id_name not in (None, *PLACES) else {}
    note = f"Scored from the answers stored in {posixpath.basename(asked.predictions.rstrip('/'))}; no model was run."
    values = {"read": read, "model": {"path": asked.predictions}, "write": {"uri": to}, "job": job, "note": note}
    return check_settings(RunSettings, values, "the command line", lay_over(values, asked.overrides))


def _nowhere(benchmark: str) -> dict[str, str]:
    """Return what must be said of images that lie apart from their questions; here they are not looked at."""
    known = BENCHMARKS.get(benchmark)
    return {"images": NOWHERE} if known is not None and known.has_image_table else {}


def _folder_and_path(data: str) -> tuple[str, str]:
    """Part a file, a folder or a glob into the folder above it and the rest, which may have wildcards."""
    pieces = data.rstrip("/").split("/")
    first = next((place for place, piece in enumerate(pieces) if "*" in piece or "?" in piece), len(pieces) - 1)
    return "/".join(pieces[:first]) or ("/" if data.startswith("/") else "."), "/".join(pieces[first:])


def _planned(settings: RunSettings, job: VqaJob) -> tuple[InputPlan, pa.Schema]:
    sources = job.sources(settings.read)
    plans = [plan_input(source.read, UNIT_ROWS, is_raw=source.is_raw, with_images=False) for source in sources]
    plan = join_plans(sources, plans, settings.read.uri)
    try:
        schema = job_rows_schema(job, plan.units)
    except MissingColumns as error:
        raise ConfigError(settings.read.uri, error.faults) from error
    return plan, part_schema(schema, job)


@dataclass(frozen=True)
class _Data:
    """The rows of a data set, and which answer belongs to which."""

    job: VqaJob
    settings: RunSettings
    units: Sequence[Unit]
    predictions: Predictions

    def check(self, *, allow_missing: bool) -> bool:
        """Refuse answers that do not fit the rows one to one; say whether each row has one."""
        ids = [self._id(row) for row in self._rows(self.units)]
        known = Counter(ids)
        if twice := [name for name, count in known.items() if count > 1]:
            raise ReportError(
                f"found {len(twice):,} ids of more than one row each in {self.settings.read.uri} ({named(twice)}), "
                f"expected `{self.predictions.id_name}` to tell rows apart; `--id` can name another column"
            )
        unknown = [name for name in self.predictions.answers if name not in known]
        if unknown:
            raise ReportError(
                f"found {len(unknown):,} answers to rows that are not there ({named(unknown)}), "
                f"expected ids such as {named(ids)}"
            )
        missing = [name for name in ids if self.predictions.answers.get(name) is None]
        if missing and not allow_missing:
            raise ReportError(
                f"found answers to {len(ids) - len(missing):,} of {len(ids):,} rows ({named(missing)} have none), "
                "expected all; `--allow-missing` scores what is there"
            )
        return not missing

    def answered(self, part: Part) -> Iterator[tuple[Mapping[str, Any], Prediction]]:
        """Give those rows of a part that have an answer, with it."""
        for row in self._rows(part.units):
            answer = self.predictions.answers.get(self._id(row))
            if answer is not None:
                yield row, answer

    def _rows(self, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
        sources = settings_by_source(self.job, self.settings.read)
        before = {unit.seq: start for unit, start in zip(self.units, _starts(self.units), strict=True)}
        for unit in units:
            table = read_job_rows(unit, self.job, sources, with_images=False).drop_columns(["images"])
            names = {source: name for name, source in kept_columns(table.schema, self.job)}
            for place, row in enumerate(table.to_pylist(), start=before[unit.seq]):
                yield {**{names.get(name, name): value for name, value in row.items()}, PLACED: place}

    def _id(self, row: Mapping[str, Any]) -> str:
        name = self.predictions.id_name
        if name in PLACES:
            return str(row[PLACED])
        facts = json.loads(row[COLUMN]["facts"] or "{}")
        return str(facts.get(name, row["key"]))


def _starts(units: Sequence[Unit]) -> Iterator[int]:
    return accumulate((unit.num_rows for unit in units[:-1]), initial=0)


def _made(
    row: Mapping[str, Any], answer: Prediction, reader: Reader, said: Mapping[str, Any], run_seed: int
) -> dict[str, Any]:
    """Return a row of the results; a row that could not be read stays an error, whatever was answered."""
    placed = {**row, **row[COLUMN], **said, "seed": row_seed(run_seed, row["key"])}
    given = _answer(answer) if row["error"] is None else None
    finish = "error" if given is None else given.finish
    return {**placed, "finish_reason": finish, **reader.read(placed, given)}


def _answer(answer: Prediction) -> Answer:
    return Answer(
        text=answer.text,
        image=None,
        token_ids=(),
        logprobs=(),
        finish="length" if answer.is_truncated else "stop",
        prompt_tokens=0,
        image_tokens=0,
    )
