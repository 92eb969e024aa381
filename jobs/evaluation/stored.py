"""Answers that one of our own runs has left in its output, scored again without a model and without the input.

It knows what stands in an output; how a response is read, the vqa job knows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.config import RunSettings, frozen_settings
from jobs.evaluation.answers import Answers, Piece, Reader, vqa_job, with_columns
from jobs.evaluation.judged import JUDGED
from jobs.report.parts import open_parts
from jobs.report.results import ReportError, look_for_parts
from jobs.vqa import SCHEMA
from models.types import Answer
from pipeline import ANSWER, ConfigError, Store, check_settings, dump_settings, ledger, read_plan, read_warnings

KNOWN = {field.name: field for field in (*ANSWER, *SCHEMA)}
NEEDED = ("key", "benchmark", "row_hash", "response", "finish_reason", "error")


def answers_of(
    store: Store,
    rules: Mapping[str, str],
    *,
    overrides: Sequence[str] = (),
    end_tokens: Sequence[str] = (),
    allow_missing: bool = False,
) -> Answers:
    """Take the answers of an output.

    Args:
        store: Where it stands.
        rules: What to score by, by benchmark; an empty name stands for all of them.
        overrides: Of the run's settings.
        end_tokens: What may stand at the end of responses.
        allow_missing: Whether the run may be unfinished.

    Raises:
        ReportError: They are no answers to questions, or some are missing.
        ConfigError: A rule or an override is none.
        StorageError: The output cannot be read.
    """
    output = look_for_parts(store)
    settings = _ruled(frozen_settings(store, overrides), rules)
    job = vqa_job(settings)
    units = read_plan(store)
    planned = sum(unit.num_rows for unit in units)
    found = sum(part.file.metadata.num_rows for part in open_parts(store))
    if found < planned and not allow_missing:
        raise ReportError(
            f"found answers to {found:,} of {planned:,} rows in {store.uri}, expected all: `triptych run` goes on, "
            "`--allow-missing` scores what is there"
        )
    reader = Reader(job, end_tokens)
    attempts = {path: store.read(path) for path in output.paths if path.startswith(f"{ledger.ATTEMPTS}/")}

    def pieces() -> Iterator[Piece]:
        for part in open_parts(store):
            if missing := [name for name in NEEDED if name not in part.schema.names]:
                raise ReportError(f"found no column {', '.join(missing)} in {store.name(part.path)}; run it anew")
            yield Piece(part.path, _scored(part.file.read(), reader))

    return Answers(
        settings=settings,
        frozen=ledger.read_settings(store),
        units=units,
        warnings=read_warnings(store),
        attempts=attempts,
        is_whole=output.is_done and found == planned,
        pieces=pieces,
    )


def _ruled(settings: RunSettings, rules: Mapping[str, str]) -> RunSettings:
    """Lay rules over a run's settings."""
    values = dump_settings(settings)
    benchmarks = values["job"].get("benchmarks") or {}
    own = values["job"].get("benchmark")
    faults = []
    for name, rule in rules.items():
        if not benchmarks and name in ("", own):
            values["job"]["rule"] = rule
        elif name in benchmarks:
            benchmarks[name]["rule"] = rule
        elif not name:
            for entry in benchmarks.values():
                entry["rule"] = rule
        else:
            faults.append(f"--rule {name}={rule}: expected one of {', '.join(benchmarks or [str(own)])}")
    if faults:
        raise ConfigError("the command line", faults)
    return check_settings(RunSettings, values, "the command line")


def _scored(rows: pa.Table, reader: Reader) -> pa.Table:
    """Return the rows of a part with what is read from their answers now; an earlier judge's words are dropped."""
    rows = rows.replace_schema_metadata().drop_columns([name for name in JUDGED.names if name in rows.column_names])
    listed = rows.drop_columns([name for name in ("output_token_ids", "output_logprobs") if name in rows.column_names])
    read = with_columns(rows, [reader.read(row, _answer(row)) for row in listed.to_pylist()])
    # Parquet calls the members of lists otherwise; equal rows are to give equal bytes.
    return read.cast(pa.schema([KNOWN.get(field.name, field) for field in read.schema]))


def _answer(row: Mapping[str, Any]) -> Answer | None:
    if row["error"] is not None or row["response"] is None:
        return None
    return Answer(
        text=row["response"],
        image=None,
        token_ids=(),
        logprobs=(),
        finish="length" if row["finish_reason"] == "length" else "stop",
        prompt_tokens=0,
        image_tokens=0,
        choice_logprobs=tuple(row.get("choice_logprobs") or ()),
    )
