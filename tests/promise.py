"""What rows have in common however often, where and in whatever company they are answered; README, "What it leaves".

On CPUs in float32 everything is equal but the last bits of log-probabilities and of painted pixels: libraries multiply
a row otherwise beside others, on another CPU and on another number of threads.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from models import Answer

# How far a token's log-probability may be off, and a pixel in levels of 255.
LOGPROB, LEVELS = 1e-5, 1

_LOGPROBS = ("logprobs", "output_logprobs", "choice_logprobs")
_PICTURES = ("image",)


def answer_faults(found: Iterable[Answer], expected: Iterable[Answer]) -> list[str]:
    """Say in words where answers are not those expected; empty is well."""
    return row_faults(map(vars, found), map(vars, expected))


def parts_in(folder: Path) -> dict[str, bytes]:
    """Read the parts of an output on a disk."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def part_faults(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Say in words where parts are not those expected; empty is well.

    Args:
        found: Parts by name.
        expected: Those of another run of the same settings.
    """
    if sorted(found) != sorted(expected):
        return [f"found the parts {sorted(found)}, expected {sorted(expected)}"]
    return [
        f"{name}: {fault}"
        for name in sorted(found)
        for fault in table_faults(*(pq.read_table(io.BytesIO(parts[name])) for parts in (found, expected)))
    ]


def table_faults(found: pa.Table, expected: pa.Table) -> list[str]:
    """Say in words where rows are not those expected; empty is well."""
    if not found.schema.equals(expected.schema, check_metadata=True):
        return [f"found the schema {found.schema}, expected {expected.schema}"]
    return row_faults(found.to_pylist(), expected.to_pylist())


def row_faults(
    found: Iterable[Mapping[str, Any]], expected: Iterable[Mapping[str, Any]], logprob: float = LOGPROB
) -> list[str]:
    """Say in words where rows are not those expected, their log-probabilities within `logprob`; empty is well."""
    ours, theirs = list(found), list(expected)
    if len(ours) != len(theirs):
        return [f"found {len(ours)} rows, expected {len(theirs)}"]
    return [
        f"row {number}: {name} is {one[name]!r:.300}, expected {other[name]!r:.300}"
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True))
        for name in other
        if not _is_kept(name, one[name], other[name], logprob)
    ]


def _is_kept(name: str, found: Any, expected: Any, logprob: float) -> bool:
    if found is None or expected is None:
        return found is expected
    if name in _LOGPROBS:
        return len(found) == len(expected) and bool(np.allclose(found, expected, rtol=0, atol=logprob))
    if name in _PICTURES:
        return looks_like(found, expected)
    return bool(found == expected)


def looks_like(found: bytes, expected: bytes) -> bool:
    """Say whether an encoded picture is the one expected."""
    one, other = (Image.open(io.BytesIO(data)) for data in (found, expected))
    if (one.format, one.size, one.mode) != (other.format, other.size, other.mode):
        return False
    pixels, wanted = (np.asarray(image).astype(int) for image in (one, other))
    return bool(np.abs(pixels - wanted).max() <= LEVELS)
