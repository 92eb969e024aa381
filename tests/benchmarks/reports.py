"""What the report of a large run takes: `python -m tests.benchmarks.reports`.

Parts are written as a run would have left them, without one; then their report is made, for each job in a process of
its own. Prints a JSON line for each: seconds, CPU seconds and greatest memory, what of it was there before it began.
`--rows` and `--parts` choose less or more.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.caption import CaptionSettings
from jobs.report.job import ReportedJob
from jobs.report.writer import write_report
from jobs.vqa import VqaSettings
from pipeline.input.units import ReadSettings, Unit
from pipeline.rows import part_schema
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.steps.write import parquet_bytes
from pipeline.storage.store import Store
from tests.benchmarks.scale import greatest_mib

UNITS_PER_PART = 10
NUM_TOKENS = 25
KINDS = ("yes/no", "number", "colour", "other")
INPUT = pa.schema([("url", pa.string()), ("gold", pa.string()), ("kind", pa.string())])


def jobs() -> dict[str, ReportedJob]:
    """Return a job that scores nothing, and two that do."""
    return {
        "caption": CaptionSettings(kind="caption").build(),
        "caption_scored": CaptionSettings(kind="caption", reference="gold").build(),
        "vqa": VqaSettings(kind="vqa", group_by="kind").build(),
    }


def write_output(folder: Path, job: ReportedJob, rows: int, parts: int) -> None:
    """Leave what a run leaves: settings, plan and parts, one for each shard of an input that is gone."""
    store = Store(str(folder))
    size = rows // parts
    settings = {
        "read": {"uri": str(folder / "input")},
        "model": {"path": "model"},
        "job": {"kind": job.kind, "group_by": "kind"},
        "note": "",
    }
    ledger.freeze_settings(store, {"settings": settings, "device": "cpu", "weights": "", "versions": {}})
    freeze_plan(store, [unit for part in range(parts) for unit in _units(folder, part, size)])
    rows = _rows(job, size)
    place = rows.column_names.index("shard")
    for part in range(parts):  # they differ in their shards alone
        shard = pa.array([_shard(part)] * size)
        store.publish(f"part-{part:05d}.parquet", parquet_bytes(rows.set_column(place, "shard", shard)))
    store.publish(ledger.SUCCESS, b"")


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


def _rows(job: ReportedJob, size: int) -> pa.Table:
    """Return a part in which one row of a hundred has failed."""
    schema = part_schema(INPUT, job)
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
        "key": f"photographs/{name}", "index": place, "model": "rhymes-ai/Aria",
        "prompt": f"<|im_start|>user\n<fim_prefix><|img|><fim_suffix>{asked}<|im_end|>\n<|im_start|>assistant\n",
        "output_token_ids": list(range(place, place + NUM_TOKENS)), "output_logprobs": [-0.25] * NUM_TOKENS,
        "finish_reason": "error" if is_failed else "stop", "prompt_tokens": 300, "image_tokens": 256,
        "output_tokens": NUM_TOKENS, "seed": place, "error": error if is_failed else None,
        "url": f"https://example.org/photographs/{name}.jpg", "gold": said if place % 3 else "another thing",
        "kind": KINDS[place % 4], "caption": said, "question": asked, "answers": ["a dog"], "response": said,
        "response_clean": said, "parsed": said, "parse_status": "ok", "score": float(place % 3 > 0),
        "rule": "exact/nocase_nopunct",
    }  # fmt: skip


def measure(folder: Path, job: ReportedJob) -> dict[str, Any]:
    """Make the report in this process."""
    logging.disable()  # that the gallery lacks its images
    before, started = greatest_mib(), time.monotonic()
    report = write_report(Store(str(folder)), job, ReadSettings(uri=str(folder / "input")))
    taken = {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time(), 1)}
    return {"rows": report.numbers["rows"], **taken, "mib": greatest_mib(), "mib_before": before}


def main(rows: int, parts: int) -> None:
    """Write each job's output, then measure its report in a process of its own."""
    for name, job in jobs().items():
        with tempfile.TemporaryDirectory() as folder:
            write_output(Path(folder), job, rows, parts)
            again = [sys.executable, "-m", "tests.benchmarks.reports", "--folder", folder, "--job", name]
            subprocess.run(again, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=list(jobs()), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        numbers = measure(arguments.folder, jobs()[arguments.job])
        print(json.dumps({"job": arguments.job, **numbers}), flush=True)
    else:
        main(arguments.rows, arguments.parts)
