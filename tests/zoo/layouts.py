"""Folders and files laid out as other tools do it."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tests.pipeline.inputs import tar_bytes
from tests.zoo.animal import RED, Animal
from tests.zoo.lines import WELL
from tests.zoo.pictures import encoded, quarters

PICTURE = encoded(quarters())


def layouts() -> Iterator[Animal]:
    """Give them all."""
    yield from _folders()
    yield from _lists()
    yield from _compressed()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue().to_pybytes())


def _jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _folder(name: str, odd: str, data: bytes, expected: str = "answer", **more: Any) -> Animal:
    return Animal(name, odd, data, expected, **{"uri": ".", **more})


def _folders() -> Iterator[Animal]:
    rows = _jsonl({"file_name": "a.png", "question": "What?"}, {"file_name": "b/gone.png", "question": "Why?"})
    beside = {"a.png": PICTURE, "c.png": PICTURE}
    yield _folder(
        "metadata.jsonl",
        "an ImageFolder; one file is missing",
        rows,
        "1 answer, 1 fetch/NotFound",
        beside=beside,
        corner=RED,
        key="a.png",
        text="What?",
    )
    several = b"left_file_name,right_file_name,question\na.png,c.png,What?\n"
    yield _folder("train/metadata.csv", "an ImageFolder with two images a row", several, images=2, beside={
        f"train/{name}": data for name, data in beside.items()
    })  # fmt: skip
    other = b"id,caption\na.png,x\n"
    message = "expected the column `file_name` or `*_file_name` of an ImageFolder beside images, found id, caption"
    yield _folder("metadata.csv", "metadata that names no files", other, "no plan", beside=beside, trouble=message)
    yield _folder(
        "1.png",
        "pictures with texts beside, one of them Latin-1",
        PICTURE,
        "2 answers, 1 fetch/NotUtf8",
        beside={"1.txt": b"a cat", "2.png": PICTURE, "2.txt": b"caf\xe9", "3.png": PICTURE},
        corner=RED,
        key="1.png",
    )
    beside = {"dog/1.png": PICTURE, "dog/2.png": PICTURE}
    yield _folder("cat/1.png", "a folder for each class", PICTURE, "3 answers", beside=beside, key="cat/1.png")


def _lists() -> Iterator[Animal]:
    read = {"columns": {"image": "text", "key": "text"}}
    yield Animal(
        "paths.lst", "image paths, one to nothing", b"a.png\ngone.png\n", "1 answer, 1 fetch/NotFound",
        beside={"a.png": PICTURE}, read=read, corner=RED, key="a.png",
    )  # fmt: skip
    about = {"00000.parquet": b"of img2dataset", "00000_stats.json": b"{}"}
    tar = tar_bytes([("000000000.jpg", PICTURE), ("000000000.txt", b"a"), ("000000000.json", b'{"url": "u"}')])
    yield _folder("00000.tar", "img2dataset: a table and statistics beside", tar, beside=about, key="000000000")


def _compressed() -> Iterator[Animal]:
    beside = {"a.png": PICTURE}
    lines = _jsonl(WELL, WELL)
    table = b"image,question\na.png,What colour?\n"
    for name, data, expected in (
        ("a.jsonl.gz", gzip.compress(lines), "2 answers"),
        ("a.jsonl.zst", zstd(lines), "2 answers"),
        ("a.jsonlines", lines, "2 answers"),
        ("a.csv.gz", gzip.compress(table), "answer"),
        ("a.tsv.zst", zstd(table.replace(b",", b"\t")), "answer"),
    ):
        odd = "lines, compressed" if name.endswith(("gz", "zst")) else "lines under a rarer name"
        yield Animal(name, odd, data, expected, beside=beside, corner=RED, text="What colour?")
    cut = zstd(_jsonl(*[WELL | {"n": n} for n in range(9)]))[:-12]
    yield Animal(
        "cut.jsonl.zst",
        "compressed lines that are cut off",
        cut,
        "no plan",
        trouble="zstd stream is cut off",
        beside=beside,
    )
