"""Random Parquet files, written in random ways, are read by units as Arrow reads them whole."""

import io
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats import page_bodies, page_cuts, page_files, page_rows, page_sizes, parquet
from pipeline.input.formats.parquet import Opened
from pipeline.storage import held_bytes

CODECS = ["none", "snappy", "zstd", "gzip", "brotli", "lz4"]
# What a column can be written in instead of a dictionary.
ENCODINGS = {
    pa.int64(): ["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"],
    pa.float64(): ["PLAIN", "BYTE_STREAM_SPLIT"],
    pa.binary(): ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"],
    pa.string(): ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"],
    pa.binary(40): ["PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BYTE_ARRAY"],
    pa.bool_(): ["PLAIN", "RLE"],
}


def random_type(random_: random.Random, depth: int = 2) -> pa.DataType:
    # Arrow writes lists of a fixed size within others that it cannot read.
    kinds = ["flat", "list", "struct", "map", "fixed"][: 5 if depth == 2 else 4 if depth else 1]
    kind = random_.choice(kinds)
    if kind == "flat":
        kinds = [*ENCODINGS, pa.large_binary()]
        return random_.choice([*kinds, pa.dictionary(pa.int32(), pa.string())] if depth == 2 else kinds)
    if kind == "list":
        make = random_.choice([pa.list_, pa.large_list])
        return make(pa.field("item", random_type(random_, depth - 1), nullable=random_.random() < 0.7))
    if kind == "map":
        return pa.map_(pa.string(), random_type(random_, 0))
    if kind == "fixed":
        return pa.list_(pa.field("item", random_.choice([pa.int64(), pa.binary()]), nullable=False), 3)
    names = random_.sample(["bytes", "path", "a.b", "x"], random_.randint(1, 3))
    return pa.struct(
        [pa.field(name, random_type(random_, depth - 1), nullable=random_.random() < 0.7) for name in names]
    )


def random_value(random_: random.Random, field: pa.Field, size: int, pool: list[bytes], nulls: float) -> Any:
    kind = field.type
    if field.nullable and random_.random() < nulls:
        return None
    if pa.types.is_struct(kind):
        return {one.name: random_value(random_, one, size, pool, nulls) for one in kind}
    if pa.types.is_map(kind):
        count = random_.choice([0, 1, 3])
        return [(f"k{n}", random_value(random_, kind.item_field, size, pool, nulls)) for n in range(count)]
    if pa.types.is_fixed_size_list(kind):
        return [random_value(random_, kind.value_field, size, pool, 0) for _ in range(3)]
    if pa.types.is_nested(kind):
        return [random_value(random_, kind.value_field, size, pool, nulls) for _ in range(random_.choice([0, 1, 2, 9]))]
    if pa.types.is_fixed_size_binary(kind):
        return random_.choice(pool).ljust(40)[:40]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return random_.choice(pool) if random_.random() < 0.3 else random_.randbytes(random_.randint(0, size))
    if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
        return random_.choice(pool).hex() if random_.random() < 0.5 else f"word {random_.randint(0, 99)} " * 9
    return {pa.int64(): random_.randint(-9, 2**40), pa.float64(): random_.random(), pa.bool_(): random_.random() < 0.5}[
        kind
    ]


def random_file(random_: random.Random) -> bytes:
    fields = [
        pa.field(f"c{n}", random_type(random_), nullable=random_.random() < 0.8) for n in range(random_.randint(1, 5))
    ]
    fields = [field.with_nullable(field.nullable and not pa.types.is_fixed_size_list(field.type)) for field in fields]
    num_rows, size = random_.randint(30, 300), random_.choice([10, 300, 3000])
    pool = [random_.randbytes(random_.randint(0, 2 * size)) for _ in range(random_.choice([1, 5, 50]))]
    nulls = random_.choice([0, 0.1, 0.9])
    columns = [
        pa.array([random_value(random_, field, size, pool, nulls) for _ in range(num_rows)], field.type)
        for field in fields
    ]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    options: dict[str, Any] = {
        "compression": random_.choice(CODECS),
        "data_page_version": random_.choice(["1.0", "2.0"]),
        "data_page_size": random_.choice([1, 1000, 20_000, 2**20]),
        "write_batch_size": random_.choice([7, 64, 1024]),
        "write_page_index": random_.random() < 0.3,
        "row_group_size": random_.choice([20, 250, 10_000]),
        "use_dictionary": random_.random() < 0.5,
        "dictionary_pagesize_limit": random_.choice([1000, 2**20]),
        "store_schema": random_.random() < 0.8,
    }
    if not options["use_dictionary"] and random_.random() < 0.7:
        flat = {field.name: field.type for field in fields if field.type in ENCODINGS}
        options["column_encoding"] = {name: random_.choice(ENCODINGS[kind]) for name, kind in flat.items()}
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize("seed", range(24))
def test_units_are_what_arrow_reads(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_ = random.Random(seed)
    limit = random_.choice([30_000, 300_000, 2**27])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(held_bytes, "BLOCK_BYTES", random_.choice([3_000, 30_000]))
    monkeypatch.setattr(page_bodies, "PIECE_BYTES", limit // 8)
    for module in (page_cuts, page_rows):
        monkeypatch.setattr(module, "SHARED_BYTES", 2000)
        monkeypatch.setattr(module, "WHOLE_BYTES", 1000)
    for module in (page_cuts, page_files, page_rows, page_sizes, parquet):
        monkeypatch.setattr(module, "LIMIT_BYTES", limit)
    data = random_file(random_)
    expected = pq.ParquetFile(io.BytesIO(data)).read()
    index = parquet.index(io.BytesIO(data), random_.choice([1, 13, 100]))
    assert index.num_rows == len(expected)
    readers = [Opened(io.BytesIO(data), name) for name in random_.choice([[""], ["", ""], ["x", "x", "x"]])]
    slices = list(index.slices)
    if random_.random() < 0.3:  # units that are done again
        slices += random_.sample(slices, len(slices) // 2)
    left_out = random_.choice([(), expected.column_names[:1]])
    expected = expected.drop_columns(list(left_out))
    for piece in slices:
        found = random_.choice(readers).read(piece.start, piece.stop, left_out, piece.pages)
        wanted = expected.slice(piece.start, piece.stop - piece.start)
        found.validate(full=True)
        assert found.schema.equals(wanted.schema)
        assert found.to_pylist() == wanted.to_pylist(), (piece, index.slices)
    for name in expected.column_names:
        rows = random_.sample(range(len(expected)), 5)
        assert readers[0].pick(name, rows) == {row: expected.column(name)[row].as_py() for row in rows}
