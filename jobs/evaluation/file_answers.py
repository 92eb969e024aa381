"""Answers of another tool, joined by id with the rows of a data set, whose images are not read."""

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
from jobs.evaluation.answers import Answers, Piece, Reader, stored_answer, vqa_job
from jobs.evaluation.outputs import first_few, repeated
from jobs.evaluation.predictions import INDEX_NAMES, Prediction, Predictions, read_predictions
from jobs.report.results import ReportError
from jobs.vqa import VqaJob
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
    setting_for,
    settings_by_source,
)

log = logging.getLogger(__name__)

# Models' own end tokens that a tool may have left on its answers: `<|eot_id|>`, `<|im_end|>`, `</s>`.
END_TOKEN = re.compile(r"(<\|[\w]+\|>|</s>)\Z")
# From this share of the answers on, an end token is warned of.
MANY = 0.1
# The index of a row in the whole data, beside its columns.
INDEX = "job.index"
# A row group that is larger is decoded again for each unit; but of other formats than Parquet a report reads whole
# units again for the images that it shows.
UNIT_ROWS = 2048
ROWS_PER_PART = 10_000
IMAGES_NOT_READ = "images-not-given"
# The job needs a preset; this one leaves answers as they are.
PLAIN_PRESET, UNKNOWN = "lmms", "unknown"
WITHOUT_A_MODEL = {"run": "", "device": "none", "check_device": "", "weights": ""}


@dataclass(frozen=True)
class PredictionFile:
    """A file of answers that another tool has stored, and what they answer.

    Attributes:
        uri: The file of the answers.
        data: The data set's shards: a file, a folder or a glob.
        benchmark: The data set; None for rows of one's own with `question` and `answers`.
        rule: The rule to score by; None for the data set's own rule.
        preset: The preset that worded the questions, if that is known.
        id_name: The column of the ids; see predictions.py.
        response_name: The column of the answers.
        model: Who has answered, for the report.
        overrides: Of the settings that follow from all this.
        end_tokens: Tokens to cut off the ends of responses.
        allow_missing: Whether rows may lack an answer.
    """

    uri: str
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

    @property
    def name(self) -> str:
        """The last part of its uri."""
        return posixpath.basename(self.uri.rstrip("/"))


def answers_from_file(file: PredictionFile, to: str) -> Answers:
    """Join the answers of a file with the rows of their data set.

    Args:
        file: The answers.
        to: Where the scored rows will be written.

    Raises:
        ReportError: Answers are missing, occur twice, or belong to no row.
        ConfigError: The settings that follow are wrong.
        StorageError: The answers or the data cannot be read.
    """
    settings = _settings(file, to)
    job = vqa_job(settings)
    predictions = read_predictions(
        file.uri, settings.read.storage, id_name=file.id_name, response_name=file.response_name
    )
    _warn_of_end_tokens(predictions, file.end_tokens)
    plan, schema = _plan(settings, job)
    data = _JoinedData(job, settings, plan.units, predictions)
    is_whole = data.check(allow_missing=file.allow_missing)
    reader = Reader(job, file.end_tokens)
    constants = {"model": file.model or file.name, "preset": file.preset or UNKNOWN}
    run_seed = settings.generate.sampling.seed

    def pieces() -> Iterator[Piece]:
        for part in plan_parts(plan.units, ROWS_PER_PART):
            rows = [
                _scored({**row, **row[COLUMN], **constants, "seed": row_seed(run_seed, row["key"])}, prediction, reader)
                for row, prediction in data.answered(part)
            ]
            if rows:
                yield Piece(part.path, pa.Table.from_pylist(rows, schema=schema))

    frozen = {**WITHOUT_A_MODEL, "versions": ledger.versions()}
    return Answers(settings, frozen, plan.units, plan.warnings, {}, is_whole, pieces)


def _scored(row: Mapping[str, Any], prediction: Prediction, reader: Reader) -> dict[str, Any]:
    """Return a row of the results; a row that could not be read stays an error, whatever was answered."""
    if row["error"] is not None:
        return {**row, "finish_reason": "error", **reader.read(row, None)}
    answer = stored_answer(prediction.text, is_truncated=prediction.is_truncated)
    return {**row, "finish_reason": answer.finish_reason, **reader.read(row, answer)}


def _warn_of_end_tokens(predictions: Predictions, known: Sequence[str]) -> None:
    """Warn if many answers end in a model's own token, which no rule cuts off."""
    texts = [answer.text.rstrip() for answer in predictions.answers.values() if answer is not None]
    ends = Counter(match[0] for text in texts if (match := END_TOKEN.search(text)) and match[0] not in known)
    for token, count in ends.items():
        if count > MANY * len(texts):
            log.warning("%d of %d answers end in %r; `--end-token '%s'` cuts it off", count, len(texts), token, token)


def _settings(file: PredictionFile, to: str) -> RunSettings:
    """Return the settings of a run that would have asked these questions."""
    job: dict[str, Any] = {"kind": "vqa"}
    read: dict[str, Any] = {"uri": file.data}
    if file.benchmark:
        read["uri"], path = _folder_and_path(file.data)
        known = BENCHMARKS.get(file.benchmark)
        # Where the images are apart from their questions, the settings must name a table of them.
        images = {"images": IMAGES_NOT_READ} if known is not None and known.has_image_table else {}
        job["benchmarks"] = {file.benchmark: {"path": path, "rule": file.rule, **images}}
        job["preset"] = file.preset or PLAIN_PRESET
    else:
        job |= {"rule": file.rule} if file.rule else {}
        read["columns"] = {"key": file.id_name} if file.id_name not in (None, *INDEX_NAMES) else {}
    note = f"Scored from the answers stored in {file.name}; no model was run."
    values = {"read": read, "model": {"path": file.uri}, "write": {"uri": to}, "job": job, "note": note}
    return check_settings(RunSettings, values, "the command line", lay_over(values, file.overrides))


def _folder_and_path(data: str) -> tuple[str, str]:
    """Split a file, a folder or a glob into the folder above it and the rest, which may have wildcards."""
    names = data.rstrip("/").split("/")
    first = next((index for index, name in enumerate(names) if "*" in name or "?" in name), len(names) - 1)
    return "/".join(names[:first]) or ("/" if data.startswith("/") else "."), "/".join(names[first:])


def _plan(settings: RunSettings, job: VqaJob) -> tuple[InputPlan, pa.Schema]:
    sources = job.sources(settings.read)
    plans = [plan_input(source.read, UNIT_ROWS, is_raw=source.is_raw, with_images=False) for source in sources]
    plan = join_plans(sources, plans, settings.read.uri)
    columns = plan.units[0].table_schema
    # A run may ask without, and scores nothing; here there is nothing else to do.
    if not job.settings.benchmarks and "answers" not in columns.names:
        proposed = setting_for("answers", columns.empty_table())
        found = f"found no column `answers`, expected the gold answers{f'; set {proposed}' if proposed else ''}"
        raise ConfigError(settings.read.uri, [found])
    try:
        schema = job_rows_schema(job, plan.units)
    except MissingColumns as error:
        raise ConfigError(settings.read.uri, error.faults) from error
    return plan, part_schema(schema, job)


@dataclass(frozen=True)
class _JoinedData:
    """The rows of a data set, and the answer to each of them."""

    job: VqaJob
    settings: RunSettings
    units: Sequence[Unit]
    predictions: Predictions

    def check(self, *, allow_missing: bool) -> bool:
        """Refuse answers that do not fit the rows one to one; return whether each row has one."""
        ids = [self._id(row) for row in self._rows(self.units)]
        known = set(ids)
        if twice := repeated(ids):
            raise ReportError(
                f"found {len(twice):,} ids of more than one row each in {self.settings.read.uri} "
                f"({first_few(twice)}), expected `{self.predictions.id_name}` to tell rows apart; "
                "`--id` can name another column"
            )
        if unknown := [name for name in self.predictions.answers if name not in known]:
            raise ReportError(
                f"found {len(unknown):,} answers to unknown rows ({first_few(unknown)}), "
                f"expected ids such as {first_few(ids)}"
            )
        missing = [name for name in ids if self.predictions.answers.get(name) is None]
        if missing and not allow_missing:
            raise ReportError(
                f"found answers to {len(ids) - len(missing):,} of {len(ids):,} rows ({first_few(missing)} have none), "
                "expected all; `--allow-missing` scores what is there"
            )
        return not missing

    def answered(self, part: Part) -> Iterator[tuple[Mapping[str, Any], Prediction]]:
        """Give the rows of a part that have an answer, with it."""
        for row in self._rows(part.units):
            answer = self.predictions.answers.get(self._id(row))
            if answer is not None:
                yield row, answer

    def _rows(self, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
        sources = settings_by_source(self.job, self.settings.read)
        starts = accumulate((unit.num_rows for unit in self.units), initial=0)
        start_of = {unit.seq: start for unit, start in zip(self.units, starts, strict=False)}
        for unit in units:
            table = read_job_rows(unit, self.job, sources, with_images=False).drop_columns(["images"])
            names = {source: name for name, source in kept_columns(table.schema, self.job)}
            for index, row in enumerate(table.to_pylist(), start=start_of[unit.seq]):
                yield {**{names.get(name, name): value for name, value in row.items()}, INDEX: index}

    def _id(self, row: Mapping[str, Any]) -> str:
        name = self.predictions.id_name
        if name in INDEX_NAMES:
            return str(row[INDEX])
        facts = json.loads(row[COLUMN]["facts"] or "{}")
        return str(facts.get(name, row["key"]))
