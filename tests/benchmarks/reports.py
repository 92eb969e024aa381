"""What the report of a large run takes, and to verify it: `python -m tests.benchmarks.reports`.

Parts are written as a run would have left them, without one; then their report is made, and they are verified, for
each job in processes of their own. Prints a JSON line for each: seconds, CPU seconds and greatest memory, what of it
was there before it began. `--rows` and `--parts` choose less or more.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.config import RunSettings
from jobs.report.job import ReportedJob
from jobs.report.writer import write_report
from jobs.verify import verify_run
from pipeline.input.columns import ERROR, OUR_COLUMNS
from pipeline.input.units import Unit
from pipeline.rows import part_schema
from pipeline.settings import check_settings, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.steps.read import job_rows_schema
from pipeline.steps.write import group_units, parquet_bytes
from pipeline.storage.store import Store
from tests.benchmarks.scale import greatest_mib

UNITS_PER_PART = 10
NUM_TOKENS = 25
MODEL = "rhymes-ai/Aria"
KINDS = ("yes/no", "number", "colour", "other")
COLUMNS = [pa.field(name, pa.string()) for name in ("url", "gold", "kind", "question")]
INPUT = pa.schema([*OUR_COLUMNS, *COLUMNS, pa.field("answers", pa.list_(pa.string())), pa.field("error", ERROR)])


# A job that scores nothing, and two that do.
JOBS: Mapping[str, Mapping[str, Any]] = {
    "caption": {"kind": "caption"},
    "caption_scored": {"kind": "caption", "reference": "gold"},
    "vqa": {"kind": "vqa", "group_by": "kind"},
}


def settings_of(folder: Path, job: str) -> RunSettings:
    """Return the settings of a run whose input and model are gone."""
    values = {"read": {"uri": str(folder / "input")}, "model": {"path": MODEL}, "write": {"uri": str(folder)}}
    return check_settings(RunSettings, {**values, "job": JOBS[job]})


def write_output(folder: Path, settings: RunSettings, rows: int, parts: int) -> None:
    """Leave what a run leaves: settings, plan and parts, one for each shard of its input."""
    store, job, size = Store(str(folder)), settings.job.build(), rows // parts
    frozen = {"settings": dump_settings(settings), "device": "cpu", "check_device": "", "weights": "", "versions": {}}
    ledger.freeze_settings(store, {"run": "me", **frozen})
    of_parts = [_units(folder, part, size) for part in range(parts)]
    units = [unit for some in of_parts for unit in some]
    freeze_plan(store, units, (), group_units(units, [len(some) for some in of_parts]))
    table = _rows(part_schema(job_rows_schema(job, units), job), size)
    for part in range(parts):  # they differ in their shards and keys alone
        table = _with(table, "shard", [_shard(part)] * size)
        table = _with(table, "key", [f"photographs/{part:05d}/{place:09d}" for place in range(size)])
        store.publish(f"part-{part:05d}.parquet", parquet_bytes(table))
    ledger.mark_finished(store, None)


def _with(table: pa.Table, name: str, values: list[str]) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values))


def _shard(part: int) -> str:
    return f"{part:05d}.jsonl"


def _units(folder: Path, part: int, size: int) -> list[Unit]:
    root, schema = str(folder / "input"), INPUT.serialize().to_pybytes()
    starts = range(0, size, size // UNITS_PER_PART)
    ends = [*starts[1:], size]
    seqs = range(part * len(starts), (part + 1) * len(starts))
    return [
        Unit(seq, root, _shard(part), "jsonl", start, end, schema)
        for seq, start, end in zip(seqs, starts, ends, strict=True)
    ]


def _rows(schema: pa.Schema, size: int) -> pa.Table:
    """Return a part in which one row of a hundred has failed."""
    rows = [_row(place) for place in range(size)]
    columns = [pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names]
    return pa.table(columns, schema)


def _row(place: int) -> dict[str, Any]:
    name = f"{place:09d}"
    error = {"stage": "decode", "type": "BadImage", "message": f"cannot decode {name}.jpg"}
    is_failed = place % 100 == 7
    said = None if is_failed else f"{name}: a small dog runs over the grass behind a red ball, and two children look on"
    asked = f"Describe this photo of {name} in one sentence."
    return {
        "index": place, "model": MODEL,
        "prompt": f"<|im_start|>user\n<fim_prefix><|img|><fim_suffix>{asked}<|im_end|>\n<|im_start|>assistant\n",
        "output_token_ids": list(range(place, place + NUM_TOKENS)), "output_logprobs": [-0.25] * NUM_TOKENS,
        "finish_reason": "error" if is_failed else "stop", "prompt_tokens": 300, "image_tokens": 256,
        "output_tokens": NUM_TOKENS, "seed": place, "error": error if is_failed else None,
        "url": f"https://example.org/photographs/{name}.jpg", "gold": said if place % 3 else "another thing",
        "kind": KINDS[place % 4], "caption": said, "question": asked, "answers": ["a dog"], "response": said,
        "response_clean": said, "parsed": said, "parse_status": "ok", "score": float(place % 3 > 0),
        "rule": "exact/nocase_nopunct",
    }  # fmt: skip


def make_report(settings: RunSettings) -> int:
    """Make the report in this process; return the rows that it counts."""
    job: ReportedJob = settings.job.build()
    logging.disable()  # that the gallery lacks its images
    return int(write_report(Store(settings.write.uri), job, settings.read).numbers["rows"])


def verify(settings: RunSettings) -> int:
    """Verify the output in this process, all of it well; return the rows that it counts. Its model is gone."""
    verified = verify_run(settings.write.uri, [], rows=0, seed=0)
    assert not verified.faults, verified.faults
    return verified.checked.counted.rows


WORKS: Mapping[str, Callable[[RunSettings], int]] = {"report": make_report, "verify": verify}


def measure(settings: RunSettings, work: str) -> dict[str, Any]:
    """Do one of the works, and say what it took."""
    before, started = greatest_mib(), time.monotonic()
    rows = WORKS[work](settings)
    taken = {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time(), 1)}
    return {"rows": rows, **taken, "mib": greatest_mib(), "mib_before": before}


def main(rows: int, parts: int) -> None:
    """Write each job's output, then do each work on it in a process of its own."""
    for job in JOBS:
        with tempfile.TemporaryDirectory() as folder:
            write_output(Path(folder), settings_of(Path(folder), job), rows, parts)
            for work in WORKS:
                again = [sys.executable, "-m", "tests.benchmarks.reports", "--folder", folder]
                subprocess.run([*again, "--job", job, "--work", work], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=list(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=list(WORKS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        numbers = measure(settings_of(arguments.folder, arguments.job), arguments.work)
        print(json.dumps({"job": arguments.job, "work": arguments.work, **numbers}), flush=True)
    else:
        main(arguments.rows, arguments.parts)
