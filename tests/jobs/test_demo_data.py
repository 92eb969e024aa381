"""The demo's package data is what its SOURCES.md says."""

import io
import json
import tarfile
from collections import Counter
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.demo.data import (
    NUM_QUESTIONS,
    answer_type,
    build,
    easy_vqa_test,
    gold_caption,
    write_caption_shards,
    write_photographs,
    write_question_shards,
)

DATA = resources.files("jobs.demo") / "data"


def test_the_benchmark_is_whole():
    images = easy_vqa_test()
    answers = [answer for image in images for answer in image["answers"]]
    assert [image["image_id"] for image in images] == list(range(1_000))
    assert len(answers) == NUM_QUESTIONS == 9_673
    assert Counter(map(answer_type, answers)) == {"yes/no": 7_136, "shape": 1_257, "colour": 1_280}
    assert sum(gold_caption(image["answers"]) is not None for image in images) == 603


def test_the_file_is_what_the_package_holds(tmp_path):
    pytest.importorskip("easy_vqa", reason="needs the extra `train`")
    build(tmp_path / "again.parquet")
    assert pq.read_table(tmp_path / "again.parquet").to_pylist() == easy_vqa_test()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [(["yes", "red", "circle"], "a red circle"), (["red", "no"], None), (["circle"], None), ([], None)],
)
def test_a_caption_is_known_where_colour_and_shape_are(answers, expected):
    assert gold_caption(answers) == expected


def test_caption_shards_hold_an_image_and_its_gold_caption(tmp_path):
    write_caption_shards(tmp_path, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images-000.tar", "images-001.tar"]
    with tarfile.open(tmp_path / "images-000.tar") as tar:
        assert tar.getnames()[:2] == ["00000.png", "00000.json"]
        assert Image.open(io.BytesIO(tar.extractfile("00000.png").read())).size == (64, 64)
        assert json.load(tar.extractfile("00000.json")) == {"gold": "a red triangle"}


def test_question_shards_hold_as_many_rows_as_asked(tmp_path):
    write_question_shards(tmp_path, 50)
    rows = pq.read_table(tmp_path).to_pylist()
    assert len(rows) == len({row["key"] for row in rows}) == 50
    assert rows[0]["question"] == "what is the red shape?"
    assert (rows[0]["answers"], rows[0]["answer_type"]) == ("triangle", "shape")
    assert rows[0]["image"]["bytes"].startswith(b"\x89PNG")


def test_question_shards_are_several_for_the_whole_benchmark(tmp_path):
    write_question_shards(tmp_path, NUM_QUESTIONS)
    assert [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())] == [2449, 2419, 2438, 2367]


def test_every_photograph_has_a_source(tmp_path):
    write_photographs(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    sources = (DATA / "SOURCES.md").read_text(encoding="utf-8")
    assert len(names) == 12
    assert [name for name in names if f"| {name} |" not in sources] == []
    assert sum(Path(tmp_path, name).stat().st_size for name in names) < 4_000_000
