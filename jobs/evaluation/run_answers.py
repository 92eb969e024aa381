"""The answers in a run's output, scored again without a model and without the input."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.config import RunSettings, frozen_settings
from jobs.evaluation.answers import Answers, Piece, Reader, stored_answer, vqa_job
from jobs.evaluation.judge import JUDGE_COLUMNS
from jobs.evaluation.outputs import open_scored_parts
from jobs.report.part_files import open_parts
from jobs.report.results import ReportError, look_for_parts
from jobs.vqa import SCHEMA
from models.types import Answer
from pipeline import ANSWER, ConfigError, Part, Store, check_settings, dump_settings, ledger

FIELDS = {field.name: field for field in (*ANSWER, *SCHEMA)}
# The columns that reading a response gives; everything else of a row stays as it is.
READ = SCHEMA.names[SCHEMA.names.index("response") :]
REQUIRED = ("key", "benchmark", "row_hash", "response", "finish_reason", "error")


def answers_from_run(
    store: Store,
    rules: Mapping[str, str],
    *,
    overrides: Sequence[str] = (),
    end_tokens: Sequence[str] = (),
    allow_missing: bool = False,
) -> Answers:
    """Return the answers of an output.

    Args:
        store: The output.
        rules: The rules to score by, by benchmark; an empty name is for all of them.
        overrides: Of the run's settings.
        end_tokens: Tokens to cut off the ends of responses.
        allow_missing: Whether the run may be unfinished.

    Raises:
        ReportError: They are no answers to questions, or some are missing.
        ConfigError: A rule or an override is wrong.
        StorageError: The output cannot be read.
    """
    standing, plan = look_for_parts(store)
    output = standing.output
    settings = _with_rules(frozen_settings(store, overrides), rules)
    reader = Reader(vqa_job(settings), end_tokens)
    planned = sum(unit.num_rows for unit in plan.units)
    found = sum(part.file.metadata.num_rows for part in open_parts(store, standing.files))
    if found < planned and not allow_missing:
        raise ReportError(
            f"found answers to {found:,} of {planned:,} rows in {store.uri}, expected all: `triptych run` continues "
            "the run, `--allow-missing` scores what is there"
        )
    attempts = {path: store.read(path) for path in output.paths if path.startswith(f"{ledger.ATTEMPTS}/")}

    def pieces() -> Iterator[Piece]:
        for number, part in enumerate(open_scored_parts(store, REQUIRED)):
            yield Piece(Part(number, ()).path, _scored(part.file.read(), reader))

    return Answers(
        settings=settings,
        frozen=ledger.read_settings(store),
        units=plan.units,
        warnings=plan.warnings,
        attempts=attempts,
        is_whole=output.is_done and found == planned,
        pieces=pieces,
    )


def _with_rules(settings: RunSettings, rules: Mapping[str, str]) -> RunSettings:
    """Return a run's settings with other rules."""
    values = dump_settings(settings)
    benchmarks = values["job"].get("benchmarks") or {}
    own = values["job"].get("benchmark")
    faults = []
    for name, rule in rules.items():
        if not benchmarks and name in ("", own):
            values["job"]["rule"] = rule
        elif not name or name in benchmarks:
            for benchmark in [name] if name else benchmarks:
                benchmarks[benchmark]["rule"] = rule
        else:
            faults.append(f"--rule {name}={rule}: expected one of {', '.join(benchmarks or [str(own)])}")
    if faults:
        raise ConfigError("the command line", faults)
    return check_settings(RunSettings, values, "the command line")


def _scored(rows: pa.Table, reader: Reader) -> pa.Table:
    """Return the rows of a part with what is read from their answers now; an earlier judge's columns are dropped."""
    rows = rows.replace_schema_metadata()
    rows = rows.drop_columns([name for name in JUDGE_COLUMNS.names if name in rows.column_names])
    without_tokens = rows.drop_columns(
        [name for name in ("output_token_ids", "output_logprobs") if name in rows.column_names]
    )
    read = [reader.read(row, _answer(row)) for row in without_tokens.to_pylist()]
    for name in READ:
        column = pa.array([row[name] for row in read], FIELDS[name].type)
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), FIELDS[name], column)
        else:
            rows = rows.append_column(FIELDS[name], column)
    # Parquet names the members of lists otherwise; equal rows must give equal bytes.
    return rows.cast(pa.schema([FIELDS.get(field.name, field) for field in rows.schema]))


def _answer(row: Mapping[str, Any]) -> Answer | None:
    if row["error"] is not None or row["response"] is None:
        return None
    logprobs = row.get("choice_logprobs") or ()
    return stored_answer(row["response"], is_truncated=row["finish_reason"] == "length", choice_logprobs=logprobs)
