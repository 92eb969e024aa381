"""The demo's data: the easy-VQA test split as one Parquet file of the package, and shards made from it for the jobs.

`python -m jobs.demo.data` makes that file again from the installed `easy-vqa` package (extra `train`).
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.shapes import KINDS

NUM_CAPTIONS = 200
NUM_QUESTIONS = 9_673
# Several shards of each kind, as in a real run over many files.
ROWS_PER_TAR = 50
IMAGES_PER_PARQUET = 250

_DATA = resources.files("jobs.demo") / "data"
_FILE = "easy_vqa_test.parquet"

Image = Mapping[str, Any]


def easy_vqa_test() -> list[Image]:
    """Return the 1,000 test images: `image_id`, `image` (PNG bytes), and lists `questions`, `answers`."""
    table = pq.read_table(pa.BufferReader((_DATA / _FILE).read_bytes()))
    images: list[Image] = table.to_pylist()
    return images


def answer_type(answer: str) -> str:
    """Say which of the benchmark's three kinds an answer is."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in KINDS else "colour"


def gold_caption(answers: Iterable[str]) -> str | None:
    """Return what the image shows if its own answers name both colour and shape, else None."""
    named = {answer_type(answer): answer for answer in answers}
    if "shape" not in named or "colour" not in named:
        return None
    return f"a {named['colour']} {named['shape']}"


def write_caption_shards(folder: Path, num_rows: int) -> None:
    """Write WebDataset tars of the first images; `gold` in a member's JSON is the true caption where it is known."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, images in enumerate(_batches(easy_vqa_test()[:num_rows], ROWS_PER_TAR)):
        with tarfile.open(folder / f"images-{number:03d}.tar", "w") as tar:
            for image in images:
                name = f"{image['image_id']:05d}"
                _add(tar, f"{name}.png", image["image"])
                _add(tar, f"{name}.json", json.dumps({"gold": gold_caption(image["answers"])}).encode())


def _batches(images: Sequence[Image], size: int) -> list[Sequence[Image]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_question_shards(folder: Path, num_rows: int) -> None:
    """Write Parquet shards with one row per question, its image beside it as the hub stores images."""
    folder.mkdir(parents=True, exist_ok=True)
    left = num_rows
    for number, images in enumerate(_batches(easy_vqa_test(), IMAGES_PER_PARQUET)):
        rows = list(_question_rows(images))[:left]
        left -= len(rows)
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"questions-{number:03d}.parquet")


def _question_rows(images: Sequence[Image]) -> Iterator[dict[str, Any]]:
    for image in images:
        name = f"{image['image_id']:05d}"
        for number, (question, answer) in enumerate(zip(image["questions"], image["answers"], strict=True)):
            yield {
                "key": f"{name}-{number:02d}",
                "image": {"bytes": image["image"], "path": f"{name}.png"},
                "question": question,
                "answers": answer,
                "answer_type": answer_type(answer),
            }


def write_photographs(folder: Path) -> None:
    """Copy the photographs, byte for byte, into a plain folder of image files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (_DATA / "photographs").iterdir():
        if not file.name.endswith(".md"):
            (folder / file.name).write_bytes(file.read_bytes())


def build(path: Path) -> None:
    """Write the test split of the installed `easy-vqa` package as one Parquet file, one row per image."""
    import easy_vqa  # only whoever rebuilds the file needs it

    paths = easy_vqa.get_test_image_paths()
    rows = {
        number: {"image_id": number, "image": Path(paths[number]).read_bytes(), "questions": [], "answers": []}
        for number in sorted(paths)
    }
    for question, answer, number in zip(*easy_vqa.get_test_questions(), strict=True):
        rows[number]["questions"].append(question)
        rows[number]["answers"].append(answer)
    texts = pa.list_(pa.string())
    schema = pa.schema({"image_id": pa.int32(), "image": pa.binary(), "questions": texts, "answers": texts})
    pq.write_table(pa.Table.from_pylist(list(rows.values()), schema), path, compression="zstd", compression_level=19)


if __name__ == "__main__":
    build(Path(__file__).parent / "data" / _FILE)
