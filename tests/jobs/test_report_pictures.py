"""The report of a job that draws: pictures from the parts, several a row, kept or dropped."""

import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.report.candidates import MOST_CARDS
from jobs.report.gallery import build_gallery, thumbnail
from jobs.report.job import PICTURE_LABELS
from jobs.report.results import read_results
from jobs.report.writer import write_report
from jobs.synthesize import SCHEMA, SynthesizeSettings
from pipeline.input.units import ReadSettings
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.storage.store import Store
from tests.pictures import plain
from tests.pipeline.inputs import plan_units
from tests.pipeline.toys import part_columns

COLUMNS = pa.schema([*part_columns(), *SCHEMA])
CHECKED = {"model": {"path": "vlm"}, "questions": [{"ask": "Is there {text}? Answer yes or no."}]}
NUM_ROWS, NUM_IMAGES = 20, 3
FAILED = 7


def file_of(row: int, image: int) -> bytes:
    return plain((row * 10, image * 100, 50), (16, 24))


def pictures_of(row: int, is_checked: bool) -> list[dict[str, Any]]:
    """The result rows of one row: several pictures, or one error."""
    same = {"key": f"p.txt#{row}", "shard": "p.txt", "index": row, "caption_in": f"scene <{row}>", "prompt_tokens": 9}
    if row == FAILED:
        error = {"stage": "template", "type": "BadRequest", "message": "unknown ratio"}
        return [{**same, "finish_reason": "error", "error": error, "image_index": 0}]
    drawn = {"finish_reason": "stop", "output_tokens": 30, "width": 16, "height": 24, "image_format": "png"}
    asked = {"ratio": "2:3", "area": 384, "negative_prompt": "", "guidance_scale": 2.0, "num_images": NUM_IMAGES}
    return [
        {
            **same,
            **drawn,
            **asked,
            "seed": 1000 + image,
            "image_index": image,
            "image": file_of(row, image),
            "check_answers": ["Yes." if image else "no"] if is_checked else None,
            "keep": image > 0 if is_checked else None,
        }
        for image in range(NUM_IMAGES)
    ]


def output(folder: Path, job_settings: dict[str, Any], parts: int = 2) -> tuple[Store, Any, ReadSettings]:
    """An output of as many of two parts of ten rows each as asked for, in row groups of seven pictures."""
    (folder / "p.txt").write_text("".join(f"scene {row}\n" for row in range(NUM_ROWS)))
    read = ReadSettings(uri=str(folder / "p.txt"))
    job = SynthesizeSettings.model_validate({"kind": "synthesize", **job_settings}).build()
    store = Store(str(folder / "out"))
    settings = {
        "read": {"uri": read.uri},
        "model": {"path": "emu3"},
        "job": job.settings.model_dump(mode="json"),
        "note": "",
    }
    ledger.freeze_settings(store, {"settings": settings, "device": "cpu", "weights": "sha256:0", "versions": {}})
    freeze_plan(store, plan_units(read, 2))
    for part in range(parts):
        rows = [one for row in range(part * 10, part * 10 + 10) for one in pictures_of(row, job.check is not None)]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), sink, row_group_size=7)
        store.publish(f"part-{part:05d}.parquet", sink.getvalue())
    if parts == 2:
        store.publish(ledger.SUCCESS, b"")
    ledger.write_attempt(store, "1", {"seconds": 10.0, "answered": 10 * parts, "output_tokens": 1740})
    (folder / "p.txt").unlink()  # no report of drawn pictures looks at the input
    return store, job, read


def test_each_card_shows_the_picture_of_its_own_row(tmp_path: Path) -> None:
    store, job, read = output(tmp_path, {})
    gallery = build_gallery(read_results(store, job), {"": read}, PICTURE_LABELS)
    assert len(gallery.cards) == MOST_CARDS
    assert not any("image" in card.row for card in gallery.cards)
    for card in gallery.cards:
        assert card.images == [thumbnail(file_of(card.row["index"], card.row["image_index"]))]
        assert card.note is None
    shown = [(card.row["index"], card.row["image_index"]) for card in gallery.cards]
    assert len(set(shown)) == MOST_CARDS
    assert len({row for row, _ in shown}) > MOST_CARDS / 2, "not all pictures of a few rows"


def test_only_the_row_groups_of_the_shown_pictures_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, job, _ = output(tmp_path, {})
    pictures = read_results(store, job).pictures
    assert pictures is not None
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def noted(self: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        assert columns == ["image"]
        read.append(group)
        return original(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    # Seven pictures are a row group: rows 0 and 1 with three each, and the first of row 2. The first part has 28.
    found = pictures.read([8, 28, 7, 1])
    assert found == {1: file_of(0, 1), 7: file_of(2, 1), 8: file_of(2, 2), 28: file_of(10, 0)}
    assert read == [0, 1, 0]


def test_the_picture_of_a_failed_row_is_nothing(tmp_path: Path) -> None:
    store, job, _ = output(tmp_path, {})
    pictures = read_results(store, job).pictures
    assert pictures is not None and pictures.read([3 * FAILED]) == {3 * FAILED: None}


def test_rows_answers_and_pictures_are_counted_apart(tmp_path: Path) -> None:
    store, job, read = output(tmp_path, {})
    numbers = write_report(store, job, read).numbers
    assert (numbers["rows"], numbers["planned_rows"], numbers["answers"], numbers["failed"]) == (20, 20, 58, 1)
    assert numbers["pictures"] == 57
    assert (numbers["rows_per_second"], numbers["pictures_per_second"]) == (2.0, 5.7)
    json.dumps(numbers)


def test_an_unfinished_run_misses_rows_and_not_pictures(tmp_path: Path) -> None:
    store, job, read = output(tmp_path, {"check": CHECKED}, parts=1)
    numbers = write_report(store, job, read).numbers
    assert (numbers["rows"], numbers["planned_rows"], numbers["answers"]) == (10, 20, 28)
    assert numbers["scores"]["kept"]["missing"] == 10
    assert numbers["pictures_per_second"] == 2.7


def test_the_page_says_kept_and_dropped_and_shows_what_was_asked(tmp_path: Path) -> None:
    store, job, read = output(tmp_path, {"check": CHECKED})
    write_report(store, job, read)
    raw = store.read("_report/report.html").decode()
    page = html.unescape(raw)
    assert page.count("✓ kept") == page.count("✗ dropped") == MOST_CARDS // 2
    assert "In the whole run 38 are kept and 19 dropped." in page
    assert "Half of them kept and half dropped" in page
    assert "kept, <b>" in page and "over 57 pictures" in page
    assert not re.search(r"\b(right|wrong|gold)\b", re.sub(r"<style>.*?</style>|class=\"[^\"]*\"", "", raw, flags=re.S))
    assert "16 × 24 · seed 100" in page and "scene &lt;" in raw
    assert raw.count("<img") == MOST_CARDS


def test_the_page_of_pictures_that_nobody_checked_has_no_verdicts(tmp_path: Path) -> None:
    store, job, read = output(tmp_path, {})
    write_report(store, job, read)
    page = store.read("_report/report.html").decode()
    assert "✓ kept" not in page and "Score" not in page
    assert "20 of 20 rows have a result; 57 pictures" in page
    assert "Pictures: 57 are whole, 1 failed." in page
    assert "1 <small>1.7\u202f% of 58 results</small>" in page


def rewrite(store: Store, path: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a part that stands."""
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(store.read(path)), schema=COLUMNS)), sink)
    store.replace(path, sink.getvalue())


def unchecked(rows: pa.Table) -> pa.Table:
    """The same rows when no picture could be asked about."""
    error = {"stage": "check", "type": "PromptTooLong", "message": "too long to be asked about"}
    changed = {"check_answers": None, "keep": None}
    return pa.Table.from_pylist(
        [{**row, **changed, "error": row["error"] or error} for row in rows.to_pylist()], schema=COLUMNS
    )


def test_a_picture_whose_check_failed_is_shown_without_a_verdict(tmp_path: Path) -> None:
    store, job, read = output(tmp_path, {"check": CHECKED})
    for part in range(2):
        rewrite(store, f"part-{part:05d}.parquet", unchecked)
    numbers = write_report(store, job, read).numbers
    assert (numbers["pictures"], numbers["failed"], numbers["answers"]) == (57, 58, 58)
    page = store.read("_report/report.html").decode()
    assert page.count("<img") == MOST_CARDS and page.count("<span>too long to be asked about</span>") == MOST_CARDS
    assert "✓ kept" not in page and "✗ dropped" not in page
    assert "Where only the check failed, the picture is there." in page and "unknown ratio</span>" not in page


def test_an_input_column_called_image_makes_no_pictures(tmp_path: Path) -> None:
    store, job, _ = output(tmp_path, {}, parts=1)
    rewrite(store, "part-00000.parquet", lambda rows: rows.drop_columns(["image_format", "caption_in"]))
    assert read_results(store, job).pictures is None
