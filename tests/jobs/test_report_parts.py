"""A report looks at a run's parts one after the other, and keeps of them only what it shows, counts and scores."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.benchmarks.totals import COUNTED
from jobs.caption import CaptionSettings
from jobs.report.candidates import MOST_CARDS, MOST_UNITS
from jobs.report.job import ReportedJob
from jobs.report.part_files import OpenPart
from jobs.report.results import read_results
from jobs.report.writer import write_report
from jobs.synthesize import SynthesizeSettings
from jobs.vqa import VqaSettings
from pipeline.input.units import ReadSettings, Unit
from pipeline.rows import part_schema
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.steps.write import parquet_bytes, with_oddities
from pipeline.storage.store import Store
from tests.pipeline.inputs import plan_units

CHECK = {"model": {"path": "vlm"}, "questions": [{"ask": "Is there {text}?"}]}
JOBS: dict[str, ReportedJob] = {
    "caption": CaptionSettings(kind="caption").build(),
    "caption with reference": CaptionSettings(kind="caption", reference="text").build(),
    "vqa": VqaSettings(kind="vqa", group_by="text").build(),
    "synthesize": SynthesizeSettings.model_validate({"kind": "synthesize", "check": CHECK}).build(),
}
NUM_ROWS, UNIT_ROWS = 400, 20
ERRORS = [("decode", "BadImage"), ("generate", "PromptTooLong"), ("fetch", "NotFound"), ("check", "PromptTooLong")]
# Text by the kilobyte in every row: nothing of it may be kept.
LONG = "a small dog " * 500


def answers_of(job: ReportedJob, index: int, chance: random.Random) -> list[dict[str, Any]]:
    """What stands in the parts for one row of the input: several answers where pictures are drawn, some of them bad."""
    number = chance.choice((1, 2, 3)) if job.kind == "synthesize" else 1
    return [answer_of(index, image, number, chance) for image in range(number)]


def answer_of(index: int, image: int, number: int, chance: random.Random) -> dict[str, Any]:
    stage, kind = chance.choice(ERRORS)
    is_bad = chance.random() < 0.1
    finish = "error" if is_bad and stage != "check" else chance.choice(("stop", "stop", "length"))
    return {
        "key": f"t.txt#{index}", "shard": "t.txt", "index": index, "finish_reason": finish, "prompt": LONG,
        "prompt_tokens": None if is_bad else 30, "output_tokens": None if is_bad else chance.randrange(9), "seed": 5,
        "error": {"stage": stage, "type": kind, "message": f"{index} {image}"} if is_bad else None,
        "text": chance.choice(("a fox", "a dog", None)), "caption": None if is_bad else chance.choice(("A dog!", LONG)),
        "benchmark": "vqa", "question": LONG, "response": LONG, "answers": ["a fox"], "row_hash": "0",
        "groups": [{"name": "text", "value": chance.choice(("a fox", "a dog"))}],
        "parse_status": "ok", "score": float(not is_bad and chance.random() < 0.6),
        "caption_in": "a fox", "image_index": image, "num_images": number, "image_format": "png",
        "width": None if finish == "error" else 8, "height": 8, "ratio": "1:1", "area": 518_400, "guidance_scale": 3.0,
        "keep": None if is_bad else chance.random() < 0.7, "check_answers": None if is_bad else ["Yes"],
    }  # fmt: skip


def output_of(folder: Path, job: ReportedJob, cuts: Sequence[int]) -> tuple[Store, ReadSettings]:
    """A finished output whose parts end after so many rows of the input; nothing but the parts depends on the cuts."""
    lines = folder / "t.txt"
    if not lines.exists():
        lines.write_text("a line\n" * NUM_ROWS)
    read = ReadSettings(uri=str(lines))
    store = Store(str(folder / "out"))
    units = plan_units(read, UNIT_ROWS)
    settings = {"read": {"uri": read.uri}, "model": {"path": "m"}, "job": {"kind": job.kind, "group_by": "text"}}
    ledger.freeze_settings(
        store, {"settings": {**settings, "note": ""}, "device": "cpu", "weights": "", "versions": {}}
    )
    freeze_plan(store, units)
    chance = random.Random(1)
    rows = [answers_of(job, index, chance) for index in range(NUM_ROWS)]
    schema = part_schema(units[0].table_schema, job)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, NUM_ROWS], strict=True)):
        part = pa.Table.from_pylist([answer for row in rows[start:stop] for answer in row], schema=schema)
        odd = {"cmyk": stop - start}  # adds up to the same, however it is cut
        store.replace(f"part-{number:05d}.parquet", parquet_bytes(with_oddities(part, odd)))
    store.publish(ledger.SUCCESS, b"")
    return store, read


@pytest.mark.parametrize("name", JOBS)
def test_the_report_of_many_parts_is_that_of_one(tmp_path: Path, name: str) -> None:
    written = []
    for cuts in ([], [20], [3, 7, 150, 155, 390], range(1, NUM_ROWS, 9)):
        store, read = output_of(tmp_path, JOBS[name], cuts)
        report = write_report(store, JOBS[name], read)
        assert report.numbers["rows"] == NUM_ROWS and report.numbers["oddities"] == {"cmyk": NUM_ROWS}
        written.append([store.read(f"_report/report.{kind}") for kind in ("json", "html")])
    assert all(one == written[0] for one in written)
    assert written[0][1].count(b"<figure") == MOST_CARDS


def test_cards_are_the_first_of_all_rows_by_their_hashes_half_of_them_wrong(tmp_path: Path) -> None:
    job = JOBS["vqa"]
    store, _ = output_of(tmp_path, job, range(10, NUM_ROWS, 10))
    results = read_results(store, job)
    step = (len(results.units) - 1) / (MOST_UNITS - 1)
    places = [place for i in range(MOST_UNITS) for place in rows_of(results.units[round(i * step)])]
    rows = pa.concat_tables([pq.read_table(tmp_path / "out" / entry) for entry in ledger.part_paths(store)]).to_pylist()
    errors = [row["error"] for row in rows]
    well = [place for place in places if errors[place] is None or errors[place]["stage"] == "check"]
    ordered = sorted(well, key=lambda place: hashlib.sha256(rows[place]["key"].encode()).hexdigest())
    halves = [[place for place in ordered if rows[place]["score"] == score][: MOST_CARDS // 2] for score in (0.0, 1.0)]
    chosen = results.candidates.choose()
    assert [one.number for one in chosen] == [*halves[0], *halves[1]]
    assert [one.row["key"] for one in chosen] == [rows[one.number]["key"] for one in chosen]
    assert (results.verdicts[True], results.verdicts[False]) == (
        sum(row["score"] == 1.0 for row in rows),
        sum(row["score"] == 0.0 for row in rows),
    )


def rows_of(unit: Unit) -> range:
    return range(unit.start, unit.stop)


@pytest.mark.parametrize("name", JOBS)
def test_of_every_row_a_few_bytes_are_kept(tmp_path: Path, name: str) -> None:
    store, _ = output_of(tmp_path, JOBS[name], range(50, NUM_ROWS, 50))
    narrow = read_results(store, JOBS[name]).summary_rows
    # The answers of published data sets have more numbers each, and lists of other rules' scores.
    assert narrow.nbytes <= (80 if name == "vqa" else 20) * narrow.num_rows


def test_columns_of_text_are_read_only_where_a_shown_row_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and pictures are read nowhere."""
    job = JOBS["vqa"]
    store, _ = output_of(tmp_path, job, range(UNIT_ROWS, NUM_ROWS, UNIT_ROWS))  # a unit is a part
    read: list[tuple[str, set[str]]] = []
    original = OpenPart.read

    def noted(self: OpenPart, names: Sequence[str]) -> pa.Table:
        rows = original(self, names)
        read.append((self.path, set(rows.column_names)))
        return rows

    monkeypatch.setattr(OpenPart, "read", noted)
    units = read_results(store, job).units
    num_shown = min(MOST_UNITS, len(units))
    wide = {path for path, columns in read if "response" in columns}
    assert len({path for path, _ in read}) == len(units) == NUM_ROWS // UNIT_ROWS
    assert len(wide) == num_shown
    assert len(read) == len(units) + num_shown
    narrow = {"key", "shard", "index", "finish_reason", "error", "score", "preset", *COUNTED}
    narrow |= {"prompt_tokens", "image_tokens", "output_tokens"}
    assert all(columns == narrow for path, columns in read if path not in wide)
    assert not {"prompt", "question", "response"} & narrow
    assert not any("output_token_ids" in columns for _, columns in read)
