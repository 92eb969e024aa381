"""Folders and files laid out as other tools do it."""

import base64
import gzip
import io
import json
import zipfile
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
    for kind in (_folders, _lists, _compressed, _documents, _arrow, _archives):
        yield from kind()


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
    image = base64.b64encode(PICTURE).decode()
    rows = f"index\tquestion\timage\n1\tWhat colour?\t{image}\n1000001\tWhat colour?\t1\n"
    by_id = {"columns": {"key": "index"}, "join": {"key": "index"}}
    yield Animal(
        "images.tsv.gz", "OpenCompass's images by another row's index, compressed", gzip.compress(rows.encode()),
        "2 answers", corner=RED, text="What colour?", key="1", read=by_id,
    )  # fmt: skip
    cut = zstd(_jsonl(*[WELL | {"n": n} for n in range(9)]))[:-12]
    yield Animal(
        "cut.jsonl.zst",
        "compressed lines that are cut off",
        cut,
        "no plan",
        trouble="zstd stream is cut off",
        beside=beside,
    )


def _documents() -> Iterator[Animal]:
    beside = {"a.png": PICTURE}
    well = {"beside": beside, "corner": RED, "text": "What colour?"}
    yield Animal("rows.json", "an array of objects", json.dumps([WELL, WELL]).encode(), "2 answers", **well)
    data = json.dumps({"version": 1, "data": [WELL]}, indent=1).encode()
    yield Animal("data.json", "an array within an object, in many lines", data, **well)
    yield Animal("lines.json", "JSON lines under another name", _jsonl(WELL, WELL), "2 answers", **well)
    mixed = json.dumps([WELL, None, 7, "a, b", [WELL]]).encode()
    yield Animal("mixed.json", "elements that are no objects", mixed, "1 answer, 4 fetch/NotJson", **well)
    cut = json.dumps([WELL, WELL, WELL]).encode()[:-9]
    yield Animal("cut.json", "an array that is cut off", cut, "2 answers", trouble="the file is cut off", **well)
    several = json.dumps({"train": [WELL], "test": [WELL]}).encode()
    message = "found several arrays of objects: 'train' (1), 'test' (1); expected one"
    yield Animal("several.json", "two arrays of objects", several, "no plan", trouble=message, beside=beside)
    coco = {"images": [{"id": 9, "file_name": "a.png"}], "annotations": [{"image_id": 9, "caption": "a"}]}
    yield Animal("coco.json", "COCO annotations", json.dumps(coco).encode(), beside=beside, corner=RED, key="9")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    row = {"id": "7", "image": "a.png", "conversations": turns}
    llava = json.dumps([row, row | {"image": None}]).encode()
    yield Animal(
        "llava.json", "LLaVA's conversations, one without its image", llava, "1 answer, 1 fetch/NoImage",
        beside=beside, corner=RED, key="7", text="What?",
    )  # fmt: skip
    parts = [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "What?"}]
    line = {"custom_id": "r-1", "body": {"messages": [{"role": "user", "content": parts}]}}
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    tools = [*turns, {"role": "tool", "content": "7"}]
    batch = _jsonl(line, *({"custom_id": "r-2", "body": {"messages": one}} for one in (turns, tools)))
    yield Animal(
        "batch.jsonl", "lines of an OpenAI batch, one with a system message, one of a tool", batch,
        "2 answers, 1 fetch/WrongTurn", beside=beside, corner=RED, key="r-1", text="What?",
    )  # fmt: skip
    yield from _conversations()


def _conversations() -> Iterator[Animal]:
    beside = {"a.png": PICTURE, "b.png": PICTURE}
    shown = "<fim_prefix><|img|><fim_suffix>"
    before = f"user\nLook: {shown}Red?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\n{shown}And?"
    well = {"beside": beside, "corner": RED, "images": 2, "text": f"{before}<|im_end|>\n<|im_start|>assistant\n"}
    parts = [{"type": "image_url", "image_url": {"url": f"{name}.png"}} for name in "ab"]
    look, red, further = ({"type": "text", "text": text} for text in ("Look: ", "Red?", "And?"))
    contents = ("Be brief.", [look, parts[0], red], "Yes.", [parts[1], further])
    roles = ("system", "user", "assistant", "user")
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    batch = _jsonl({"custom_id": "r-1", "body": {"messages": turns}})
    yield Animal(
        "turns.jsonl", "a line of an OpenAI batch: a system message, three turns, two images", batch, key="r-1", **well
    )
    contents = ("Look: <image>Red?", "Yes.", "<image>And?")
    marked = [{"role": role, "content": content} for role, content in zip(roles[1:], contents, strict=True)]
    marks = _jsonl({"id": 7, "system": "Be brief.", "messages": marked, "images": [*beside]})
    yield Animal("marks.jsonl", "messages as LLaMA-Factory has them: marks, images beside", marks, key="7", **well)
    values = (("human", "Look: <image>Red?"), ("gpt", "Yes."), ("human", "<image>\nAnd?"), ("gpt", "No."))
    row = {"id": "7", "image": [*beside], "conversations": [{"from": who, "value": said} for who, said in values]}
    told = "passed over 1 earlier questions of conversations, which are told with their answers and not asked"
    yield Animal(
        "turns.json", "a LLaVA conversation of two questions, both answered", json.dumps([row]).encode(), key="7",
        trouble=told, **well,
    )  # fmt: skip


def _arrow() -> Iterator[Animal]:
    rows = pa.table({"image": [{"bytes": PICTURE, "path": None}] * 5, "question": ["What?"] * 5})
    for name, new in (("stream.arrow", pa.ipc.new_stream), ("file.arrow", pa.ipc.new_file)):
        sink = io.BytesIO()
        with new(sink, rows.schema) as to:
            to.write_table(rows, max_chunksize=2)
        data = sink.getvalue()
        yield Animal(name, "Arrow's record batches", data, "5 answers", corner=RED, text="What?")
    cut = data[: len(data) * 3 // 5]
    yield Animal("cut.arrow", "record batches, cut off", cut, "2 answers", trouble="cut off within the message")
    beside = {"test.jsonl": _jsonl(WELL), "a.png": PICTURE}
    message = "found several splits at"
    yield Animal(
        "train.jsonl", "two splits in one folder", _jsonl(WELL), "no plan", trouble=message, beside=beside,
        uri=".", read={"format": "jsonl"},
    )  # fmt: skip


def _archives() -> Iterator[Animal]:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in (("a.png", PICTURE), ("b.png", PICTURE), ("a.txt", b"What?"), ("__MACOSX/._a.png", b"?")):
            archive.writestr(name, data)
    data = sink.getvalue()
    hidden = "passed over 1 hidden members"
    yield Animal("a.zip", "a zip archive of images", data, "2 answers", trouble=hidden, corner=RED, key="a")
    yield Animal("cut.zip", "a zip archive, cut off", data[:-40], "no plan", trouble="no zip archive")
    rows = _jsonl(WELL)
    beside = {"lang=de/a.jsonl": rows, "lang=en/a.png": PICTURE, "lang=de/a.png": PICTURE}
    yield Animal(
        "lang=en/a.jsonl", "hive folders", rows, "2 answers", beside=beside, uri=".", read={"format": "jsonl"},
        corner=RED, trouble="passed over 2 files",
    )  # fmt: skip
