"""Fixtures that the tests of jobs, their reports and stored answers share."""

import json

import pytest

from jobs.__main__ import main
from jobs.evaluation.file_answers import PredictionFile, answers_from_file
from jobs.evaluation.score import score
from pipeline.storage.store import Store
from tests.jobs.stored import BULK, asked_of, report_of, rows_of
from tests.pictures import plain


@pytest.fixture
def docvqa(tmp_path):
    """The scored answers of the small DocVQA set."""
    assert main(asked_of("docvqa_val", tmp_path / "docvqa")) == 0
    return tmp_path / "docvqa"


@pytest.fixture
def joined_with(tmp_path):
    """Join answers with the small DocVQA set, score them, and return report and rows."""

    def join(answers, **asked):
        (tmp_path / "answers.json").write_text(json.dumps(answers))
        wanted = PredictionFile(
            str(tmp_path / "answers.json"), str(BULK / "docvqa_val" / "*.parquet"), "docvqa_val", **asked
        )
        score(answers_from_file(wanted, str(tmp_path / "out")), Store(str(tmp_path / "out")), "answers.json")
        return report_of(tmp_path / "out")["scores"]["docvqa_val"], rows_of(tmp_path / "out")

    return join


@pytest.fixture
def photos(tmp_path):
    """Forty images in a folder, one of them no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.png").write_bytes(plain((number, 0, 0), (20, 20)))
    (folder / "03.png").write_bytes(b"not an image")
    return folder
