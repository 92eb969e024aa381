"""What other tools write, laid out in a folder; each layout returns the settings that read it."""

import functools
import gzip
import json
import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from tests.end_to_end.shards import png
from tests.pictures import encoded
from tests.pipeline.inputs import tar_bytes, write
from tests.zoo.layouts import zstd

# Names that shells, addresses, globs and file systems give a meaning of their own.
ODD_NAMES = ("a b", "100%25", "50%", "a+b", "a#b", "a?b=c&d", "été", "日本", "x*[1]", 'it\'s "so"', " both ends ", "~")

Settings = dict[str, Any]


def jsonl(*rows: Any) -> str:
    """Lines of JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def arrow(path: Path, tables: Sequence[pa.Table], *, is_stream: bool = True, **options: Any) -> Path:
    """Write an Arrow file with a record batch of each table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if is_stream else pa.ipc.new_file
    with new(path, tables[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as sink:
        for table in tables:
            sink.write_table(table)
    return path


def parquet(path: Path, table: pa.Table) -> Path:
    """Write a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def hub_table(numbers: range) -> pa.Table:
    """Rows as Hugging Face's hub has them."""
    images = pa.array([{"bytes": png(n % 5), "path": None} for n in numbers])
    return pa.table({"id": [f"r{n}" for n in numbers], "image": images, "n": list(numbers)})


def zip_of(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def coco(folder: Path, annotations: Sequence[Mapping[str, Any]]) -> Path:
    """Write three images, and annotations of them."""
    images = [{"id": n, "file_name": f"{n:012d}.png", "width": 4} for n in (7, 3, 12)]
    for n, image in enumerate(images):
        write(folder / f"val2017/{image['file_name']}", png(n))
    content = {"info": {"year": 2017}, "images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return write(folder / "annotations/a.json", json.dumps(content))


@functools.cache
def noise(number: int) -> bytes:
    """A picture of about 8 kB, which compresses no further."""
    return encoded(Image.frombytes("RGB", (52, 52), random.Random(number).randbytes(52 * 52 * 3)))


def imagefolder(root: Path, kind: str = "jsonl") -> Settings:
    """Write an ImageFolder of two splits."""
    for split, numbers in (("train", range(6)), ("validation", range(6, 9))):
        rows = [{"file_name": f"sub/{n} x.png", "n": str(n)} for n in numbers]
        for n in numbers:
            write(root / split / f"sub/{n} x.png", noise(n))
        path = root / split / f"metadata.{kind}"
        if kind == "parquet":
            parquet(path, pa.Table.from_pylist(rows))
        else:
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            write(path, jsonl(*rows) if kind == "jsonl" else "\n".join(lines))
    return {"uri": str(root), "split": "all"}


def saved(root: Path) -> Settings:
    """Write what `save_to_disk` does, of two splits."""
    for split, numbers in (("train", range(9)), ("test", range(9, 12))):
        table = pa.table({"image": [{"bytes": noise(n), "path": f"{n}.png"} for n in numbers], "n": list(numbers)})
        arrow(root / split / "data-00000-of-00001.arrow", [table.slice(start, 4) for start in range(0, len(table), 4)])
        arrow(root / split / "cache-1234.arrow", [table])
        write(root / split / "state.json", "{}")
    write(root / "dataset_dict.json", '{"splits": ["train", "test"]}')
    return {"uri": str(root), "split": "train", "columns": {"key": "n"}}


def arrow_file(root: Path) -> Settings:
    """Write an Arrow file with a footer, compressed."""
    table = pa.table({"image": [noise(n) for n in range(9)], "text": [f"text {n}" for n in range(9)]})
    arrow(root / "a.arrow", [table.slice(0, 5), table.slice(5)], is_stream=False, compression="zstd")
    return {"uri": str(root)}


def _named(root: Path, count: int = 6) -> list[dict[str, str]]:
    """Write pictures and return rows that name them, by a path in the folder."""
    for n in range(count):
        write(root / f"pictures/{n} x.png", noise(n))
    return [{"id": f"r{n}", "image": f"pictures/{n} x.png", "question": f"Who is {n}?"} for n in range(count)]


def lines(root: Path, name: str, pack: Callable[[bytes], bytes]) -> Settings:
    """Write lines of JSON about pictures."""
    write(root / name, pack(jsonl(*_named(root)).encode()))
    return {"uri": str(root / name), "columns": {"key": "id"}}


def array(root: Path) -> Settings:
    """Write a JSON array of rows that name pictures."""
    write(root / "rows.json", json.dumps({"version": 1, "data": _named(root)}, indent=1))
    return {"uri": str(root / "rows.json"), "columns": {"key": "id"}}


def captions(root: Path) -> Settings:
    """Write COCO's captions."""
    path = coco(root, [{"image_id": image, "caption": f"of {image}"} for image in (3, 7, 3)])
    return {"uri": str(path), "folders": {"image": str(root / "val2017")}, "columns": {"answers": "captions"}}


def llava(root: Path) -> Settings:
    """Write LLaVA's conversations."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A picture."}]
    rows = [{"id": row["id"], "image": row["image"].split("/")[1], "conversations": turns} for row in _named(root)]
    write(root / "llava.json", json.dumps(rows))
    return {"uri": str(root / "llava.json"), "folders": {"image": str(root / "pictures")}}


def batch(root: Path) -> Settings:
    """Write lines of an OpenAI batch."""
    rows = []
    for row in _named(root):
        parts = [{"type": "image_url", "image_url": {"url": row["image"]}}, {"type": "text", "text": row["question"]}]
        rows.append({"custom_id": row["id"], "body": {"messages": [{"role": "user", "content": parts}]}})
    return {"uri": str(write(root / "batch.jsonl", jsonl(*rows)))}


def downloads(root: Path) -> Settings:
    """Write the tars of img2dataset, with a table and statistics about each."""
    for shard in range(2):
        members = []
        for n in range(shard * 5, shard * 5 + 5):
            fields = json.dumps({"caption": f"of {n}", "url": f"http://x/{n}", "width": n}).encode()
            members += [(f"{n:09d}.jpg", noise(n)), (f"{n:09d}.txt", b"of %d" % n), (f"{n:09d}.json", fields)]
        write(root / f"{shard:05d}.tar", tar_bytes(members))
        parquet(root / f"{shard:05d}.parquet", pa.table({"url": ["http://x"]}))
        write(root / f"{shard:05d}_stats.json", "{}")
    return {"uri": str(root)}


def downloaded_files(root: Path) -> Settings:
    """Write the folders of img2dataset, with a table and statistics about each."""
    for n in range(6):
        shard = f"0000{n // 3}"
        write(root / f"{shard}/{n:09d}.jpg", noise(n))
        write(root / f"{shard}/{n:09d}.txt", f"of {n}")
        write(root / f"{shard}/{n:09d}.json", json.dumps({"url": f"http://x/{n}", "key": f"{n:09d}"}))
        parquet(root / f"{shard}.parquet", pa.table({"url": ["http://x"]}))
        write(root / f"{shard}_stats.json", "{}")
    return {"uri": str(root)}


def kohya(root: Path) -> Settings:
    """Write pictures with a text beside each; their names are odd."""
    for n, name in enumerate(ODD_NAMES):
        write(root / f"10_{name}/{name}.png", noise(n))
        write(root / f"10_{name}/{name}.txt", f"of {name}")
    return {"uri": str(root)}


def classes(root: Path) -> Settings:
    """Write a folder for each class, one picture of them in JPEG 2000."""
    for n, name in enumerate(("cat", "dog", "é t")):
        write(root / f"{name}/{n}.png", noise(n))
        write(root / f"{name}/{n}.jp2", encoded(Image.new("RGB", (32, 32), "red"), "JPEG2000"))
    return {"uri": str(root)}


def hive(root: Path) -> Settings:
    """Write folders that are columns."""
    for place, folder in enumerate(("lang=en/year=2020", "lang=d%20e/year=2021", "lang=a+b/year=2022")):
        numbers = range(place * 3, place * 3 + 3)
        table = pa.table({"image": [noise(n) for n in numbers], "n": list(numbers)})
        parquet(root / folder / "part-0.parquet", table)
    return {"uri": str(root)}


def archive(root: Path) -> Settings:
    """Write a zip archive of pictures and texts, which stand as a folder was walked: in no order."""
    order = random.Random(0).sample(range(12), 12)
    members = {f"in/{n}.png": noise(n) for n in order} | {f"in/{n}.txt": f"of {n}".encode() for n in order}
    zip_of(root / "a.zip", members, zipfile.ZIP_STORED)
    return {"uri": str(root)}


def splits(root: Path) -> Settings:
    """Write several splits in one folder."""
    for place, split in enumerate(("train", "validation", "test")):
        table = pa.table({"image": [noise(place * 3 + n) for n in range(3)], "text": [split] * 3})
        parquet(root / f"data/{split}-00000-of-00001.parquet", table)
    return {"uri": str(root), "split": "validation"}


def paths(root: Path) -> Settings:
    """Write a list of the paths of pictures with odd names: relative, and whole addresses."""
    for n, name in enumerate(ODD_NAMES):
        write(root / f"p/{name}.png", noise(n))
    listed = [f"p/{name}.png" for name in ODD_NAMES] + [f"{root}/p/{name}.png" for name in ODD_NAMES]
    write(root / "lists/paths.lst", "\n".join(listed))
    both = {"image": "text", "key": "text"}
    return {"uri": str(root / "lists/paths.lst"), "columns": both, "folders": {"image": str(root)}}


def odd_shards(root: Path) -> Settings:
    """Write shards with odd names in a folder with an odd name."""
    for n, name in enumerate(ODD_NAMES):
        row = {"image": f"{name}.png", "n": n}
        write(root / f"in #1 [x]? 100%/{name}.jsonl", jsonl(row))
        write(root / f"in #1 [x]? 100%/{name}.png", noise(n))
    return {"uri": str(root / "in #1 [x]? 100%"), "format": "jsonl"}


def joined(root: Path) -> Settings:
    """Write questions on images that lie in a table of their own."""
    table = pa.table({"id": [str(n) for n in range(9)], "image": [{"bytes": noise(n), "path": None} for n in range(9)]})
    parquet(root / "images/a.parquet", table.slice(0, 5))
    parquet(root / "images/b.parquet", table.slice(5))
    rows = [{"image": str(n % 9), "question": f"Who is {n}?"} for n in range(14)]
    write(root / "questions.jsonl", jsonl(*rows))
    return {"uri": str(root / "questions.jsonl"), "join": {"uri": f"{root}/images/*.parquet"}}


LAYOUTS: Mapping[str, Callable[[Path], Settings]] = {
    "imagefolder_jsonl": imagefolder,
    "imagefolder_csv": functools.partial(imagefolder, kind="csv"),
    "imagefolder_parquet": functools.partial(imagefolder, kind="parquet"),
    "save_to_disk": saved,
    "arrow_file": arrow_file,
    "jsonl_gz": functools.partial(lines, name="a.jsonl.gz", pack=gzip.compress),
    "jsonl_zst": functools.partial(lines, name="a.jsonl.zst", pack=zstd),
    "jsonlines": functools.partial(lines, name="a.jsonlines", pack=bytes),
    "json_array": array,
    "coco": captions,
    "llava": llava,
    "openai_batch": batch,
    "img2dataset_tars": downloads,
    "img2dataset_files": downloaded_files,
    "kohya": kohya,
    "classes": classes,
    "hive": hive,
    "zip": archive,
    "splits": splits,
    "paths": paths,
    "odd_shards": odd_shards,
    "join": joined,
}
