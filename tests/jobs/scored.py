"""Folders of scored rows, as a vqa run and `triptych score` leave them, made without either."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import vqa
from tests.pipeline.toys import part_columns

SCHEMA = pa.schema([*part_columns(), *vqa.SCHEMA])

LEAST = {
    "shard": "data.parquet",
    "model": "aria",
    "prompt": "",
    "finish_reason": "stop",
    "output_tokens": 1,
    "benchmark": "docvqa_val",
    "question": "What?",
    "context": "",
    "answers": ["yes"],
    "choices": [],
    "groups": [],
    "facts": "{}",
    "row_hash": "same",
    "image_hash": "same",
    "preset": "lmms",
    "response": "yes",
    "response_clean": "yes",
    "parsed": "yes",
    "parse_status": "ok",
    "score": 1.0,
    "rule": "anls/rrc",
}
FAILED = {
    "error": {"stage": "decode", "type": "BadImage", "message": "no image"},
    "finish_reason": "error",
    "response": None,
    "response_clean": None,
    "parsed": None,
    "parse_status": None,
    "score": 0.0,
}


def rows(scores: Sequence[float | None], **columns: Any) -> list[dict[str, Any]]:
    """Make one row a score, with keys `0`, `1`, ..."""
    return [
        {**LEAST, "key": str(place), "index": place, "score": score, **columns} for place, score in enumerate(scores)
    ]


def write_scored(folder: Path, made: Sequence[Mapping[str, Any]], origin: Mapping[str, Any] | None = None) -> str:
    """Write rows as two parts; return the folder."""
    folder.mkdir(parents=True)
    half = (len(made) + 1) // 2
    for number, some in enumerate((made[:half], made[half:])):
        data = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(row) for row in some], schema=SCHEMA), data)
        (folder / f"part-{number:05d}.parquet").write_bytes(data.getvalue())
    if origin is not None:
        (folder / "_triptych").mkdir()
        (folder / "_triptych" / "settings.json").write_text(json.dumps(origin))
    return str(folder)
