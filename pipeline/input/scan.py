"""Scan the shards once, when a run is planned: where their rows lie, what they hold and what is odd about them.

It opens every shard and reads headers, footers or lines; which rows become which unit it does not know.
"""

import functools
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, assert_never

import pyarrow as pa

from pipeline.input.columns import Layout
from pipeline.input.formats import arrays, arrow, cells, manifest, parquet, samples, tar_rows, zips
from pipeline.input.formats.fields import wider
from pipeline.input.formats.rows import Index, ReadError, Shape
from pipeline.input.formats.table import FORMATS, Format
from pipeline.input.shards import Shards
from pipeline.storage.store import Entry

# Shards scanned at once; each holds one open file and its read-ahead buffer.
NUM_READERS = 8
# Told apart in the warnings about what is passed over.
MOST_KINDS = 20
# So many units of a compressed shard, or so few bytes to be unpacked for all of them, are not worth a word.
MOST_UNPACKED, UNPACKED_BYTES = 8, 2**30

Scan = Sequence[tuple[Entry, Index]]


def scan_shards(
    shards: Shards, unit_rows: int, limit: int | None, dialect: cells.Dialect, shapes: Collection[Shape]
) -> Scan:
    """Scan the shards in order; with a limit, only until so many rows are found.

    Args:
        shards: All of them.
        unit_rows: The most rows of a unit.
        limit: The most rows of all.
        dialect: Of CSV and TSV.
        shapes: What rows may be beyond their fields.

    Raises:
        ReadError: A shard is not what its format says.
        StorageError: The store refuses or does not answer.
    """
    scan = functools.partial(_scan, shards, unit_rows, limit, dialect, shapes)
    # The first shard may be enough.
    waves = [shards.entries] if limit is None else [shards.entries[:1], shards.entries[1:]]
    scanned: list[tuple[Entry, Index]] = []
    num_rows = 0
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for wave in waves:
            for entry, index in zip(wave, pool.map(scan, wave), strict=True):
                scanned.append((entry, index))
                num_rows += index.num_rows
                if limit is not None and num_rows >= limit:
                    return scanned  # what is not begun yet is called off
    return scanned


def merged(format: Format, indexes: Sequence[Index]) -> tuple[dict[str, pa.DataType], frozenset[str]]:
    """Merge what the shards hold: the columns of all, each of a type that holds the values of every shard."""
    fields: dict[str, pa.DataType] = {}
    extensions: frozenset[str] = frozenset()
    for index in indexes:
        extensions |= index.extensions.keys()
        for name, kind in index.fields.items():
            fields[name] = wider(fields[name], kind) if name in fields else kind
    return fields, extensions


def warnings_of(shards: Shards, scanned: Scan, layout: Layout) -> list[str]:
    """Tell what is odd about shards whose rows can be read all the same.

    Raises:
        ReadError: A table lacks a column that was named.
    """
    warnings = [f"{shards.store.name(entry.path)}: {text}" for entry, index in scanned for text in index.warnings]
    warnings += _passed_over(scanned, layout.wanted_image)
    return warnings + _columns_missing(shards, scanned, layout) + _unpacked_often(scanned)


def _scan(
    shards: Shards,
    unit_rows: int,
    limit: int | None,
    dialect: cells.Dialect,
    shapes: Collection[Shape],
    entry: Entry,
) -> Index:
    def scan(file: BinaryIO) -> Index:
        match shards.format:
            case "webdataset":
                return tar_rows.index(file, entry.size, unit_rows, shapes)
            case "zip":
                return zips.index(file, entry.size, unit_rows, shapes)
            case "arrow":
                return arrow.index(file, entry.size, unit_rows)
            case "parquet":
                return parquet.index(file, unit_rows, limit)
            case "jsonl" | "csv" | "tsv" | "text":
                return manifest.index(file, entry.size, unit_rows, shards.format, dialect, shapes)
            case "json":
                return arrays.index(file, entry.size, unit_rows, shapes)
            case "images" | "video":
                raise AssertionError("files that are rows are planned from their listing")
            case _:
                assert_never(shards.format)

    try:
        return shards.store.use(entry.path, scan, entry.size)
    except ReadError as error:
        raise ReadError(f"cannot read {shards.store.name(entry.path)} as {shards.format}: {error}") from error


def _passed_over(scanned: Scan, image: str | None) -> list[str]:
    """Sum up over all shards what becomes no column and no image of a row, kind by kind."""
    counts: Counter[str] = Counter()
    num_shards: Counter[str] = Counter()
    for _, index in scanned:
        extensions = {name: count for name, count in index.extensions.items() if not _is_read(name, image)}
        found = Counter({f"members with extension {name!r}": count for name, count in extensions.items()})
        found.update(index.passed_over)
        counts.update(found)
        num_shards.update(found.keys())
    shown = counts.most_common(MOST_KINDS)
    rest = len(counts) - len(shown)
    warnings = [f"passed over {count} {kind} in {num_shards[kind]} of {len(scanned)} shards" for kind, count in shown]
    return warnings + ([f"passed over members of {rest} more kinds"] if rest else [])


def _unpacked_often(scanned: Scan) -> list[str]:
    """Tell of compressed shards of many units: each unit may unpack its shard from the start up to its own end."""
    often = [(entry, index) for entry, index in scanned if index.is_packed and len(index.slices) > MOST_UNPACKED]
    content = sum(piece.end_byte for _, index in often for piece in index.slices)
    if content < UNPACKED_BYTES:
        return []
    entry, index = often[0]
    return [
        f"{len(often)} compressed shards have more than {MOST_UNPACKED} units (first {entry.path}: "
        f"{len(index.slices)}), and a unit may have to unpack its shard from the start: up to {content / 10**9:.1f} GB "
        "in all; shards that are not compressed are read faster"
    ]


def _is_read(extension: str, image: str | None) -> bool:
    return samples.is_field(extension) or samples.is_image(extension, image)


def _columns_missing(shards: Shards, scanned: Scan, layout: Layout) -> list[str]:
    """Tell which tables lack columns that others have; lacking one that was named stops the run."""
    if not FORMATS[shards.format].is_table:
        return []
    wanted = {name for names in layout.named.values() for name in names}
    names = {name for _, index in scanned if index.slices for name in index.fields}
    warnings: list[str] = []
    for entry, index in scanned:
        missing = names - set(index.fields)
        named = missing & wanted
        listed = ", ".join(map(repr, sorted(named or missing)))
        text = f"{shards.store.name(entry.path)}: has no column {listed}, which other shards have"
        if named and index.slices:
            raise ReadError(text)
        if missing and index.slices:
            warnings.append(f"{text}; it is null in its rows")
    return warnings
