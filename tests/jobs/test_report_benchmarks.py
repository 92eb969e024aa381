"""The report of a run that asks several published data sets, whose answers are given here and no model's."""

import html
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.benchmarks.items import COLUMN
from jobs.config import RunSettings
from jobs.console_text import score_lines
from jobs.report.candidates import CARDS_OF_BENCHMARK
from jobs.report.caveats import caveats_of
from jobs.report.gallery import thumbnail
from jobs.report.writer import Report, rewrite_report, write_report
from jobs.vqa import VqaJob
from models.types import Answer, Sampling
from pipeline.input.sources import join_plans
from pipeline.input.units import Unit, plan_input
from pipeline.rows import part_schema
from pipeline.settings import check_settings, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.steps.read import job_rows_schema, read_job_rows, settings_by_source
from pipeline.steps.write import parquet_bytes
from pipeline.storage.store import Store
from tests.pictures import plain

NASTY = "<script>alert(1)</script> | `x`"
UNIT_ROWS = 8
NUM_DOCUMENTS, NUM_QUESTIONS, NUM_PICTURES, NUM_ASKED, NUM_HIDDEN = 80, 24, 12, 40, 5
FAILED, CUT_OFF = range(10, 13), range(20, 26)
ENTRIES: dict[str, dict[str, Any]] = {
    "docvqa_val": {"path": "docvqa/*.parquet"},
    "docvqa_test": {"path": "docvqa_test/*.parquet"},
    "pope": {"path": "pope/*.parquet"},
    "coco_caption": {"path": "coco/*.parquet"},
    "mmstar": {"path": "mmstar/*.parquet", "rule": "mcq/first_letter"},
}
Said = Callable[[int], str | None]
SAID: dict[str, Said] = {
    "docvqa_val": lambda row: None if row in FAILED else f"answer {row}" if row % 4 else f"{NASTY} nothing {row}",
    "docvqa_test": lambda row: "secret",
    "pope": lambda row: "Yes, there is." if row % 5 else "no",
    "coco_caption": lambda row: f"a dog and {row} balls on the grass" if row % 3 else "a cat",
    "mmstar": lambda row: "B" if row % 2 else "I would rather not say which of these it is",
}


def document(row: int) -> dict[str, Any]:
    kinds = [["layout"], ["form", "table/list"], ["handwritten"]][row % 3]
    return {"questionId": f"{row}", "question": f"What is on page {row}?", "question_types": kinds, "docId": row // 2}


def picture(row: int) -> dict[str, Any]:
    return {"bytes": plain((row * 3 % 256, 90, 120), (24, 24)), "path": f"{row}.png"}


def rows_of(name: str) -> list[dict[str, Any]]:
    """A small data set in the layout that the published one has."""
    if name == "docvqa_val":
        rows = [document(row) | {"answers": [f"answer {row}", "an answer"]} for row in range(NUM_DOCUMENTS)]
    elif name == "docvqa_test":
        rows = [document(row) | {"answers": None} for row in range(NUM_HIDDEN)]
    elif name == "pope":
        kinds = ("adversarial", "popular", "random")
        rows = [
            {
                "id": f"p{row}", "question": f"Is there a dog in picture {row}?",
                "answer": "no" if row % 4 else "yes", "image_source": f"COCO_{row // 4}", "category": kinds[row % 3],
            }
            for row in range(NUM_QUESTIONS)
        ]  # fmt: skip
    elif name == "coco_caption":
        gold = ["a dog and balls on the grass", "a dog plays outside"]
        rows = [{"question_id": f"COCO_val2014_{row:012d}.jpg", "answer": gold} for row in range(NUM_PICTURES)]
    else:
        rows = [
            {
                "index": row, "question": f"Which {row}? Options: A: one, B: two, C: three, D: four", "answer": "B",
                "category": "math", "l2_category": "geometry" if row % 2 else "statistics",
            }
            for row in range(NUM_ASKED)
        ]  # fmt: skip
    return [row | {"image": picture(number)} for number, row in enumerate(rows)]


def settings_of(folder: Path, entries: Mapping[str, Any], **more: Any) -> RunSettings:
    """A run over data sets below a folder, which are written there if they are not yet."""
    for name in entries:
        file = folder / Path(entries[name]["path"]).parent / "data.parquet"
        if not file.exists():
            file.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows_of(name)), file)
    values = {
        "read": {"uri": str(folder)},
        "model": {"path": "a/model"},
        "write": {"uri": str(folder / "out")},
        **more,
        "job": {"kind": "vqa", "preset": "lmms", "benchmarks": dict(entries), **more.get("job", {})},
    }
    return check_settings(RunSettings, values)


def answered(job: VqaJob, row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What stands in a part for one row."""
    name = row[COLUMN]["benchmark"]
    said = SAID[name](number)
    is_cut_off = name == "docvqa_val" and number in CUT_OFF
    answer = None if said is None else Answer(said, None, (1, 2), (0.0, 0.0), "length" if is_cut_off else "stop", 9, 4)
    finish = "error" if answer is None else answer.finish_reason
    error = {"stage": "generate", "type": "PromptTooLong", "message": NASTY} if said is None else None
    return {
        "key": row["key"], "shard": row["shard"], "index": row["index"], "prompt": f"<|user|>{number}", "error": error,
        "finish_reason": finish, "prompt_tokens": 9, "image_tokens": 4, "output_tokens": 2, "seed": 1,
        **job.record(row, answer, 0, Sampling(max_new_tokens=8)),
    }  # fmt: skip


def output_of(settings: RunSettings, left_out: int = 0) -> Store:
    """What a run leaves that has come to its end, or to so many units before it."""
    job = settings.job.build()
    assert isinstance(job, VqaJob)
    sources = job.sources(settings.read)
    plans = [plan_input(source.read, UNIT_ROWS, is_raw=source.is_raw) for source in sources]
    units = join_plans(sources, plans, settings.read.uri).units
    store = Store(settings.write.uri)
    dumped = dump_settings(settings)
    frozen = {"settings": dumped, "device": "cpu", "weights": "sha256:0", "versions": {"ray": "2.60.0"}}
    ledger.freeze_settings(store, frozen)
    freeze_plan(store, units)
    schema = part_schema(job_rows_schema(job, units), job)
    done = units[: len(units) - left_out]
    for number in range(0, len(done), 3):
        rows = [row for unit in done[number : number + 3] for row in answers_of(job, settings, unit)]
        part = pa.Table.from_pylist(rows, schema=schema)
        store.replace(f"part-{number // 3:05d}.parquet", parquet_bytes(part))
    placement = {"generate_most": 2, "generate_gpus": 1.0}
    attempt = {"seconds": 10.0, "answered": 100, "output_tokens": 200, "placement": placement}
    ledger.write_attempt(store, "1", attempt)
    if not left_out:
        store.publish(ledger.SUCCESS, b"")
    return store


def answers_of(job: VqaJob, settings: RunSettings, unit: Unit) -> list[dict[str, Any]]:
    rows = read_job_rows(unit, job, settings_by_source(job, settings.read)).to_pylist()
    return [answered(job, row, unit.start + place) for place, row in enumerate(rows)]


def reported(
    folder: Path, left_out: int = 0, entries: Mapping[str, Any] = ENTRIES, **more: Any
) -> tuple[Store, Report]:
    settings = settings_of(folder, entries, **more)
    store = output_of(settings, left_out)
    return store, write_report(store, settings.job.build(), settings.read)


def page_of(store: Store) -> str:
    return store.read("_report/report.html").decode()


def section(page: str, name: str) -> str:
    """The part of a page that is about one benchmark."""
    return page.split(f"<h2>{name}</h2>")[1].split("<section")[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Report]:
    """The report of a finished run."""
    return reported(tmp_path_factory.mktemp("benchmarks"))


def test_each_benchmark_has_its_own_score_counts_and_wording(whole: tuple[Store, Report]) -> None:
    _, report = whole
    scores = report.numbers["scores"]
    assert list(scores) == list(ENTRIES)
    rows = {"docvqa_val": NUM_DOCUMENTS, "docvqa_test": 0, "pope": NUM_QUESTIONS, "coco_caption": NUM_PICTURES}
    assert {name: score["n"] for name, score in scores.items()} == {**rows, "mmstar": NUM_ASKED}
    assert all((score["missing"], score["presets"]) == (0, ["lmms"]) for score in scores.values())
    document = scores["docvqa_val"]
    assert (document["failed"], document["truncated"], document["statuses"]["truncated"]) == (3, 6, 6)
    assert (document["right"], document["wrong"]) == (58, 22)
    assert list(document["breakdowns"]["question_types"]) == ["form", "handwritten", "layout", "table/list"]
    assert report.numbers["device_seconds_per_1000_rows"] == 200.0


def test_the_page_has_one_table_over_all_benchmarks(whole: tuple[Store, Report]) -> None:
    store, report = whole
    table = section(page_of(store), "Scores")
    for name, score in report.numbers["scores"].items():
        (line,) = [row for row in table.split("<tr>") if f">{name}</a>" in row]
        assert f"<code>{score['rule']}</code>" in line and score["metric"] in line and "asked as lmms" in line
        if score["score"] is None:
            assert "no gold" in line and f"+ {score['unscored']} no gold" in line
        else:
            low, high = score["low"] * 100, score["high"] * 100
            assert f"{score['score'] * 100:.2f}" in line and f"{low:.2f} – {high:.2f}" in line
    assert "Student's t, clustered" in html.unescape(table) and "bootstrap" in table and "Wilson" in table


def test_only_captions_are_printed_times_a_hundred_without_a_percent_sign(whole: tuple[Store, Report]) -> None:
    store, report = whole
    page = page_of(store)
    captions = report.numbers["scores"]["coco_caption"]
    head = section(page, "coco_caption").split("<figure")[0]
    assert "\u202f%" not in head
    assert f"{captions['metrics']['BLEU-4'] * 100:.2f}</dd>" in head
    assert "\u202f%" in section(page, "pope").split("<figure")[0]
    said = {line.partition(":")[0]: line for line in score_lines(report.numbers)}
    assert said["coco_caption"].startswith(f"coco_caption: {captions['score'] * 100:.2f} CIDEr-D (95 % interval ")
    assert said["docvqa_val"] == ("docvqa_val: 72.50 % (95 % interval 63.70–81.30, 80 rows), 3 failed, 6 cut off")
    assert said["docvqa_test"] == "docvqa_test: no gold answers, 5 rows"
    assert "% mean F1 over categories (95 % interval " in said["pope"]
    assert said["mmstar"].endswith("40 rows), 20 could not be read")


def test_every_breakdown_is_a_table_that_marks_cells_of_few_rows(whole: tuple[Store, Report]) -> None:
    store, _ = whole
    page = section(page_of(store), "mmstar")
    assert re.findall(r"<summary>By ([^(<]*) \(", page) == ["category", "l2 category"]
    category, second = page.split("<summary>By ")[1:]
    assert '<td class="num" data-label="rows">40</td>' in category and "(few)" not in category.split("<tbody>")[1]
    assert second.split("</table>")[0].count('<span class="quiet">(few)</span>') == 2


def test_ten_wrong_rows_of_each_benchmark_are_shown_with_their_own_images(whole: tuple[Store, Report]) -> None:
    store, report = whole
    page = page_of(store)
    for name, score in report.numbers["scores"].items():
        shown = section(page, name)
        figures = Counter(re.findall(r'<figure(?: class="(\w+)")?>', shown))
        assert figures["wrong"] == min(CARDS_OF_BENCHMARK[False], score["wrong"] - score["failed"])
        assert figures["right"] == min(CARDS_OF_BENCHMARK[True], score["right"])
        assert figures[""] == (
            0 if score["right"] + score["wrong"] else min(CARDS_OF_BENCHMARK[None], score["unscored"] + score["n"])
        )
        assert shown.count("data:image/png") == sum(figures.values())
        for figure in shown.split("<figure")[1:]:
            (number,) = re.findall(r'<p class="key">[^<]*?(\d+)(?:\.jpg)?</p>', figure)
            assert f'src="{thumbnail(picture(int(number))["bytes"])}"' in html.unescape(figure)
    assert "could not be read again" not in page
    assert "Which 4? Options: A: one, B: two, C: three, D: four" in section(page, "mmstar")


def test_what_stands_in_rows_is_text_in_the_page_and_in_markdown(whole: tuple[Store, Report]) -> None:
    store, _ = whole
    assert "<script" not in page_of(store)
    markdown = store.read("_report/report.md").decode()
    assert "\\<script" in markdown and not re.search(r"(?<!\\)<script", markdown)
    cells = {line.replace(r"\|", "").count("|") for line in markdown.splitlines() if line.startswith("| docvqa")}
    assert cells == {14}


def test_markdown_has_the_numbers_of_the_page(whole: tuple[Store, Report]) -> None:
    store, report = whole
    markdown = store.read("_report/report.md").decode()
    for name, score in report.numbers["scores"].items():
        (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {name.replace('_', chr(92) + '_')} |")]
        assert f"`{score['rule']}`" in line
        assert score["score"] is None or f"{score['score'] * 100:.2f}" in line
    for caveat in report.numbers["caveats"]:
        words = " ".join(caveat.split()).replace("_", r"\_")
        assert f"- {words}" in markdown


def test_only_the_caveats_that_apply_are_given(whole: tuple[Store, Report]) -> None:
    _, report = whole
    # Whether Java is at hand, by which captions are cut into words as published, is not the report's.
    assert [caveat for caveat in report.numbers["caveats"] if not caveat.startswith("coco_caption")] == [
        "docvqa_val: 7.5\u202f% of the answers were cut off at the token limit.",
        "docvqa_val: 3.8\u202f% of the rows failed, and count as wrong.",
        "mmstar: scored by mcq/first_letter; published scores use mmstar/official.",
        "mmstar: 50.0\u202f% of the answers could not be read, and count as wrong.",
    ]


def test_what_has_no_gold_answers_is_not_said_to_count_as_wrong() -> None:
    score = {"metric": "mean", "n": 0, "unscored": 66, "rows": 236, "missing": 0, "truncated": 0, "failed": 9}
    numbers = {
        "is_finished": True,
        "settings": {"read": {}, "job": {}},
        "scores": {"mmbench_test_en_v11": {**score, "score": None, "statuses": {"failed": 118}}},
    }
    assert [caveat.partition("\u202f")[2] for caveat in caveats_of(numbers)] == [
        "% of the answers could not be read.",
        "% of the rows failed.",
    ]
    assert "mmbench_test_en_v11: 50.0" in caveats_of(numbers)[0]


def test_a_limit_and_what_is_missing_are_caveats(tmp_path: Path) -> None:
    entries = {"pope": {**ENTRIES["pope"], "limit": 16}, "docvqa_val": ENTRIES["docvqa_val"]}
    store, report = reported(tmp_path, left_out=1, entries=entries)
    scores = report.numbers["scores"]
    assert (scores["pope"]["n"], scores["pope"]["missing"]) == (16, 0)
    document = scores["docvqa_val"]
    assert (document["n"], document["missing"]) == (72, 8)
    assert document["score_over_all"] == pytest.approx(document["score"] * 72 / 80)
    caveats = report.numbers["caveats"]
    assert caveats[0] == "The run is not finished."
    assert "pope: only the first 16 rows were asked (limit)." in caveats
    over_all = f"{document['score_over_all'] * 100:.1f}\u202f%"
    assert f"docvqa_val: 8 of 80 rows are missing; with them counted as wrong the score is {over_all}." in caveats
    assert "Scored 72 of 80" in section(page_of(store), "docvqa_val")
    assert "8 missing" in score_lines(report.numbers)[1]


def test_answers_drawn_by_chance_and_own_wordings_are_caveats(tmp_path: Path) -> None:
    entries = {"pope": {**ENTRIES["pope"], "prompt": "{question} Yes or no?"}}
    sampled = {"sampling": {"temperature": 0.6, "top_p": 0.9}}
    more = {"generate": sampled, "job": {"fallback": "random"}, "read": {"uri": str(tmp_path), "limit": 8}}
    store, report = reported(tmp_path, entries=entries, **more)
    assert report.numbers["caveats"] == [
        "Only the first 8 rows were read (read.limit): scores are those of a sample.",
        "Where no answer could be read, an option was guessed (fallback: random): part of each score is luck.",
        "Answers were sampled (temperature 0.6): another seed gives other scores.",
        "pope: asked with a prompt of the run's own, unlike any published score.",
    ]
    page = page_of(store)
    assert "sampled, temperature 0.6, top p 0.9, seed 0" in page and "asked in own words" in page


def test_answers_that_could_not_be_read_are_listed_for_a_person(whole: tuple[Store, Report]) -> None:
    store, report = whole
    listed = [json.loads(line) for line in store.read("_report/unread.jsonl").decode().splitlines()]
    assert Counter((row["benchmark"], row["status"]) for row in listed) == {
        ("docvqa_val", "truncated"): 6,
        ("mmstar", "failed"): 20,
    }
    row = next(row for row in listed if row["benchmark"] == "mmstar")
    assert row == {
        "benchmark": "mmstar", "key": "0", "status": "failed", "prompt": "<|user|>0", "response": SAID["mmstar"](0),
        "gold": ["B"],
    }  # fmt: skip
    unread = report.numbers["scores"]["mmstar"]["unread"]
    assert (unread["rows"], unread["listed"]) == (20, 20)
    assert [(one["ending"], one["count"]) for one in unread["most"]] == [(SAID["mmstar"](0), 20)]
    assert "Could not be read: 20 answers" in section(page_of(store), "mmstar")
    assert "Could not be read" not in section(page_of(store), "pope")


def test_of_many_unread_answers_the_first_are_listed_and_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.report.unread.MOST_ROWS", 7)
    store, report = reported(tmp_path, entries={"mmstar": ENTRIES["mmstar"]})
    unread = report.numbers["scores"]["mmstar"]["unread"]
    assert (unread["rows"], unread["listed"], len(store.read("_report/unread.jsonl").splitlines())) == (20, 7, 7)
    assert "among the first 7" in page_of(store)


def test_the_settings_beside_the_report_make_the_run_again(whole: tuple[Store, Report]) -> None:
    store, report = whole
    text = store.read("_report/config.yaml").decode()
    again = check_settings(RunSettings, yaml.safe_load(text))
    assert dump_settings(again) == report.numbers["settings"]
    assert html.unescape(page_of(store).split('<pre class="whole">')[1].split("</pre>")[0]) == text


def test_the_same_data_in_other_order_has_the_same_fingerprint(tmp_path: Path, whole: tuple[Store, Report]) -> None:
    def fingerprint(folder: str, rows: list[dict[str, Any]]) -> str:
        file = tmp_path / folder / "mmstar/data.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
        _, report = reported(tmp_path / folder, entries={"mmstar": ENTRIES["mmstar"]})
        return str(report.numbers["scores"]["mmstar"]["data"])

    rows = rows_of("mmstar")
    assert fingerprint("turned", rows[::-1]) == whole[1].numbers["scores"]["mmstar"]["data"]
    assert fingerprint("changed", [{**rows[0], "answer": "C"}, *rows[1:]]) != fingerprint("same", rows)


def test_a_benchmark_that_no_row_is_answered_of_says_so(tmp_path: Path) -> None:
    names = ("pope", "mmstar")
    store, report = reported(tmp_path, left_out=5, entries={name: ENTRIES[name] for name in names})
    assert score_lines(report.numbers)[1] == "mmstar: no row is answered yet, 40 missing"
    assert "No row is answered yet" in section(page_of(store), "mmstar")


def test_a_report_written_again_is_the_same(tmp_path: Path) -> None:
    store, _ = reported(tmp_path, entries={name: ENTRIES[name] for name in ("pope", "mmstar")})
    files = ("report.json", "report.md", "report.html", "config.yaml", "unread.jsonl")
    before = [store.read(f"_report/{name}") for name in files]
    rewrite_report(store.uri)
    assert [store.read(f"_report/{name}") for name in files] == before


def judged(rows: pa.Table) -> pa.Table:
    """The same rows after a judge has looked at what could not be read, and found every second answer right."""
    is_read = [status != "failed" for status in rows["parse_status"].to_pylist()]
    found = [None if known else float(place % 4 == 0) for place, known in enumerate(is_read)]
    names = pa.array([None if known else "a judge" for known in is_read], pa.string())
    return rows.append_column("judge", names).append_column("judged_score", pa.array(found, pa.float64()))


def test_a_judges_share_stands_behind_the_score_without_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, {"mmstar": ENTRIES["mmstar"]})
    store = output_of(settings)
    for path in ledger.part_paths(store):
        store.replace(path, parquet_bytes(judged(pq.read_table(io.BytesIO(store.read(path))))))
    report = write_report(store, settings.job.build(), settings.read)
    score = report.numbers["scores"]["mmstar"]
    assert score["score"] == 0.5
    assert score["judge"] == {"judges": ["a judge"], "rows": 20, "share": 0.5, "score": 0.75}
    shown = section(page_of(store), "mmstar")
    assert shown.index("50.00\u202f%") < shown.index("75.00\u202f%")
    assert "a judge looked at 20 answers that the rule could not read" in shown
