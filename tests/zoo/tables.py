"""Parquet files as hubs, Spark and pandas write them."""

import io
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.zoo.animal import RED, Animal
from tests.zoo.pictures import encoded, quarters

PICTURE = encoded(quarters())


def tables() -> Iterator[Animal]:
    """Give them all."""
    yield from _images()
    yield from _broken()


def latin(texts: Sequence[str]) -> pa.Array:
    """A column of texts that some writers make: the bytes are not checked."""
    return pa.array([text.encode("latin-1") for text in texts], pa.binary()).view(pa.string())


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def _images() -> Iterator[Animal]:
    struct = {"bytes": PICTURE, "path": "somewhere/else.jpg"}
    columns = {
        "hub": ("the hub's struct, one null", [struct, None], "1 answer, 1 fetch/MissingImage", None),
        "structs": ("lists of structs", [[struct, struct], [None]], "1 answer, 1 fetch/MissingImage", 2),
        "nested": ("lists in lists", [[[PICTURE], [PICTURE, None]]], "answer", 2),
        "large": ("64-bit offsets", pa.array([PICTURE], pa.large_binary()), "answer", 1),
        "shared": ("a dictionary", pa.array([PICTURE, PICTURE]).dictionary_encode(), "2 answers", 1),
        "views": ("binary views", pa.array([PICTURE], pa.binary_view()), "answer", 1),
        "null": ("no image in any row", pa.nulls(2), "2 fetch/MissingImage", 0),
        "empty": ("bytes of no length", [b"", PICTURE], "1 answer, 1 fetch/MissingImage", 0),
    }
    for name, (odd, column, expected, images) in columns.items():
        corner = RED if name not in ("null", "empty") else None
        yield Animal(f"{name}.parquet", odd, _parquet({"image": column}), expected, images=images, corner=corner)
    padded = [PICTURE + random.Random(n).randbytes(500_000) for n in range(12)]
    large = _parquet({"image": padded})
    yield Animal("row_group.parquet", "a row group, and a page, of several units", large, "12 answers", corner=RED)
    repeated = pa.array([padded[0]] * 10)
    same = _parquet({"image": repeated, "other": pa.array(padded[:10])})
    yield Animal("repeated.parquet", "an image that all rows share", same, "10 answers", corner=RED)
    paths = _parquet({"image": ["a.png", "sub/../a.png", "gone.png"]})
    beside = {"a.png": PICTURE}
    yield Animal("paths.parquet", "paths, one to nothing", paths, "2 answers, 1 fetch/NotFound", beside=beside)
    numbers = _parquet({"image": [1, 2]})
    yield Animal(
        "numbers.parquet", "images that are numbers", numbers, "no plan", trouble="holds int64, expected bytes"
    )
    asked = _parquet({"image": [PICTURE], "question": pa.array([b"raw"])})
    yield Animal("raw.parquet", "questions of bytes", asked, "no plan", trouble="holds binary, expected string")
    texts = {name: latin(["What?", "caf\xe9?", "Why?"]) for name in ("question", "note")}
    keyed = {"key": latin(["a", "b", "caf\xe9"]), "image": [PICTURE] * 3}
    yield Animal(
        "latin.parquet", "texts in Latin-1: a question, a note that nobody reads, a key", _parquet(keyed | texts),
        "1 answer, 1 fetch/WrongKey, 1 fetch/WrongType", key="a", text="What?",
    )  # fmt: skip
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    chats = _parquet({"id": ["7"], "image": [struct], "conversations": [talk]})
    yield Animal("chats.parquet", "LLaVA's conversations, as structs", chats, corner=RED, key="7", text="What?")
    named = _parquet({"photo": [PICTURE]})
    read = {"columns": {"image": "image_bytes"}}
    message = "names 'image_bytes', but the columns are: photo"
    yield Animal("named.parquet", "a column that is not there", named, "no plan", trouble=message, read=read)
    read = {"columns": {"image": "photo"}}
    yield Animal("photo.parquet", "a column of another name", named, corner=RED, read=read)


def _broken() -> Iterator[Animal]:
    pictures = [PICTURE + bytes([n]) for n in range(8)]
    whole = _parquet({"image": pictures}, row_group_size=4, compression="zstd", use_dictionary=False)
    page = pq.ParquetFile(io.BytesIO(whole)).metadata.row_group(1).column(0).data_page_offset
    broken = whole[:page] + b"\xff" * 64 + whole[page + 64 :]
    yield Animal("page.parquet", "a broken page", broken, "4 answers, 4 fetch/Unreadable")
    padded = [picture + random.Random(n).randbytes(600_000) for n, picture in enumerate(pictures)]
    pages = {"write_batch_size": 2, "data_page_size": 2**20, "compression": "zstd", "use_dictionary": False}
    whole = _parquet({"image": padded}, **pages)
    page = whole.index(b"\x28\xb5\x2f\xfd", 4 * 600_000)  # where its third page's zstd begins
    broken = whole[:page] + b"\xff" * 64 + whole[page + 64 :]
    odd = "a broken page of a row group of several units"
    yield Animal("one_page.parquet", odd, broken, "4 answers, 4 fetch/Unreadable")
    yield Animal("cut.parquet", "cut off in the middle", whole[: len(whole) // 2], "no plan", trouble="cannot read")
    yield Animal("no_bytes.parquet", "no bytes", b"", "no plan", trouble="0 bytes")
    rows = _parquet({"image": pa.array([], pa.binary())})
    yield Animal("no_rows.parquet", "no rows", rows, "no plan", trouble="found no rows")
    yield Animal("page.html.parquet", "a web page", b"<html>" * 99, "no plan", trouble="cannot read")
