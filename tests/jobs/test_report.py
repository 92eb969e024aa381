"""The report of an output: its numbers, its gallery, its page."""

import base64
import html
import io
import json
import re
import uuid

import pyarrow as pa
import pytest
from PIL import Image

from jobs.caption import CaptionJob, CaptionSettings
from jobs.config import RunSettings
from jobs.console_text import score_lines
from jobs.report.candidates import MOST_CARDS
from jobs.report.counts import SUMMED, Counts
from jobs.report.gallery import SIDE_PIXELS, build_gallery, thumbnail
from jobs.report.job import TEXT_LABELS, labels_of
from jobs.report.numbers import numbers_of
from jobs.report.page import SETTLED, render, render_markdown, render_report
from jobs.report.results import ReportError, read_results
from jobs.report.writer import rewrite_report, write_report
from jobs.vqa import SCHEMA, VqaSettings
from models.images import silent_conversions
from models.types import BadImage
from pipeline.input.units import ReadSettings
from pipeline.rows import ERROR
from pipeline.settings import ConfigError, check_settings, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.steps.write import parquet_bytes, with_oddities
from pipeline.storage.store import Store
from tests.pictures import plain
from tests.pipeline.inputs import plan_units

NASTY = '<script>alert("1")</script> & {{ 7 * 7 }}'


def error_at(number):
    return {"stage": "decode", "type": "BadImage", "message": f"cannot decode {NASTY}"} if number == 3 else None


def answers_of(photos, columns):
    """Rows of results over the photographs, with the job's columns as given."""
    names = [path for unit in plan_units(ReadSettings(uri=str(photos)), 4) for path in unit.paths]
    rows = {
        "key": names,
        "shard": names,
        "index": pa.array([0] * len(names), pa.int64()),
        "finish_reason": ["error" if error_at(i) else "stop" for i in range(len(names))],
        "prompt_tokens": pa.array([None if error_at(i) else 30 for i in range(len(names))], pa.int32()),
        "image_tokens": pa.array([None if error_at(i) else 16 for i in range(len(names))], pa.int32()),
        "output_tokens": pa.array([None if error_at(i) else 2 for i in range(len(names))], pa.int32()),
        "error": pa.array([error_at(i) for i in range(len(names))], ERROR),
        **columns,
    }
    return pa.table(rows)


def frozen_of(photos, job):
    return {
        "settings": {
            "read": {"uri": str(photos)},
            "model": {"path": "model"},
            "job": job.settings.model_dump(mode="json"),
            "note": NASTY,
        },
        "device": "cpu",
        "weights": "sha256:0",
        "versions": {"ray": "2.60.0"},
    }


def output_of(photos, job, *parts, uri=None, warnings=(), is_finished=True):
    """An output with these parts, of a run that was started twice."""
    store = Store(uri or f"memory://{uuid.uuid4().hex}")
    ledger.freeze_settings(store, frozen_of(photos, job))
    freeze_plan(store, plan_units(ReadSettings(uri=str(photos)), 4), warnings)
    for number, rows in enumerate(parts):
        store.publish(f"part-{number:05d}.parquet", parquet_bytes(rows))
    ledger.write_attempt(store, "1", {"seconds": 10.0, "answered": 30, "output_tokens": 60})
    ledger.write_attempt(store, "2", {"seconds": 10.0, "answered": 10, "output_tokens": 18})
    if is_finished:
        store.publish(ledger.SUCCESS, b"")
    return store


def captioned(photos, reference="gold"):
    """A job that captions, and what it made of the photographs."""
    columns = {
        "caption": [None if error_at(i) else NASTY if i % 4 == 0 else "a dog" for i in range(40)],
        "gold": ["a dog"] * 40,
    }
    return CaptionSettings(kind="caption", reference=reference).build(), answers_of(photos, columns)


def questioned(photos, scores=None):
    """A job that asks, and what it made of the photographs; every second answer is right if nothing else is said."""
    said = [None if error_at(i) else "Red." if i % 2 else "blue" for i in range(40)]
    columns = {
        "benchmark": ["b"] * 40,
        "question": ["what is this?"] * 40,
        "answers": [["red"]] * 40,
        "groups": [[{"name": "kind", "value": "odd" if i % 2 else "even"}] for i in range(40)],
        "row_hash": ["0"] * 40,
        "response": said,
        "parse_status": [None if one is None else "ok" for one in said],
        "score": scores or [0.0 if error_at(i) else float(i % 2) for i in range(40)],
    }
    typed = {field.name: pa.array(columns.get(field.name, [None] * 40), field.type) for field in SCHEMA}
    return VqaSettings(kind="vqa", benchmark="b", group_by="kind").build(), answers_of(photos, typed)


def results_of(photos, job, *parts, **options):
    return read_results(output_of(photos, job, *parts, **options), job)


def gallery_of(photos, job, *parts):
    return build_gallery(results_of(photos, job, *parts), {"": ReadSettings(uri=str(photos))}, TEXT_LABELS)


def page_of(photos, job, *parts, **options):
    results = results_of(photos, job, *parts, **options)
    gallery = build_gallery(results, {"": ReadSettings(uri=str(photos))}, labels_of(job))
    return render_report(numbers_of(results, job), gallery, job)


def test_the_numbers_are_those_of_the_parts_and_of_all_starts(photos):
    job, rows = questioned(photos)
    numbers = numbers_of(results_of(photos, job, rows), job)
    assert (numbers["rows"], numbers["planned_rows"], numbers["failed"], numbers["attempts"]) == (40, 40, 1, 2)
    assert (numbers["tokens"], numbers["prompt_tokens"], numbers["image_tokens"]) == (78, 39 * 30, 39 * 16)
    assert (numbers["seconds"], numbers["rows_per_second"], numbers["tokens_per_second"]) == (20.0, 2.0, 3.9)
    assert numbers["finish_reasons"] == {"stop": 39, "error": 1}
    score = numbers["scores"]["b"]
    assert (score["score"], score["n"], score["failed"], score["missing"]) == (19 / 40, 40, 1, 0)
    assert score["by"]["even"]["score"] == 0.0
    json.dumps(numbers)


def test_an_unfinished_run_says_how_many_rows_it_misses(photos):
    job, rows = questioned(photos)
    part = rows.slice(0, 30)
    assert numbers_of(results_of(photos, job, part, is_finished=False), job)["scores"]["b"]["missing"] == 10
    assert "Not finished: 30 of 40 rows" in page_of(photos, job, part, is_finished=False)


def test_failures_are_counted_by_stage_and_type_with_the_first_examples_of_all_parts():
    errors = [{"stage": "decode", "type": "BadImage", "message": f"m{i}"} if i % 3 else None for i in range(9)] + [
        {"stage": "fetch", "type": "Missing", "message": "gone"}
    ]
    places = {"shard": ["s"] * 10, "index": range(10), "finish_reason": ["stop"] * 10}
    tokens = {name: pa.nulls(10, pa.int32()) for name in SUMMED}
    rows = pa.table({"key": [f"k{i}" for i in range(10)], **places, **tokens, "error": pa.array(errors, ERROR)})
    counts = Counts()
    for start in (0, 2, 5):
        counts.add(rows.slice(start, {0: 2, 2: 3, 5: 5}[start]))
    first, second = counts.failures
    assert (first["stage"], first["type"], first["count"]) == ("decode", "BadImage", 6)
    assert first["examples"] == [{"key": f"k{i}", "message": f"m{i}"} for i in (1, 2, 4)]
    assert (second["stage"], second["count"]) == ("fetch", 1)
    assert (counts.rows, counts.answers, counts.failed) == (10, 10, 7)


def test_text_of_rows_and_settings_is_escaped(photos):
    page = page_of(photos, *captioned(photos))
    assert "<script" not in page
    assert "alert(&#34;1&#34;)&lt;/script&gt; &amp; {{ 7 * 7 }}" in page


def test_the_page_needs_no_network_and_no_script(photos):
    for job, rows in (captioned(photos), questioned(photos)):
        page = page_of(photos, job, rows)
        links = re.findall(r"""(?:src|href|srcset|action)=["']?([^"'\s>]+)|url\(([^)]+)\)|@import""", page)
        assert links
        assert all(link[0].startswith("data:image/") for link in links)
        assert not re.search(r"<script|<link|<iframe|\son\w+=", page)


def test_right_and_wrong_are_said_in_words_and_signs(photos):
    page = html.unescape(page_of(photos, *questioned(photos)))
    assert page.count("✓ right") == page.count("✗ wrong") == MOST_CARDS // 2
    assert "In the whole run 19 are right and 21 wrong." in page
    assert "what is this?" in page and "Red." in page


def test_rows_without_gold_answers_have_no_score_and_nothing_to_be_careful_of(photos):
    job, rows = questioned(photos, scores=[None] * 40)
    unscored = rows.set_column(rows.column_names.index("answers"), "answers", pa.nulls(40, pa.list_(pa.string())))
    results = results_of(photos, job, unscored)
    numbers = numbers_of(results, job)
    assert (numbers["scores"], numbers["caveats"], score_lines(numbers)) == ({}, [], [])
    page = page_of(photos, job, unscored)
    assert "Score" not in page and "quote these numbers" not in page and "Gallery" in page
    assert "what is this?" in page and "## Scores" not in render_markdown(numbers, job)


def test_scores_between_right_and_wrong_are_means_with_another_interval(photos):
    job, rows = questioned(photos, scores=[0.25 if i % 2 else 1.0 for i in range(40)])
    numbers = numbers_of(results_of(photos, job, rows), job)
    page = html.unescape(page_of(photos, job, rows))
    assert "on average, <b>" in page and "(Student's t)" in page and "right, <b>" not in page
    assert score_lines(numbers)[0].startswith("b: 62.5 % on average (95 % interval ")


def test_a_gallery_shows_the_same_rows_every_time(photos):
    first, second = (gallery_of(photos, *captioned(photos)) for _ in range(2))
    assert first == second
    assert len(first.cards) <= MOST_CARDS
    assert len({card.row["key"] for card in first.cards}) == len(first.cards)
    assert all(len(card.images) == 1 for card in first.cards)


def test_a_gallery_leaves_failed_rows_to_the_table_of_failures(photos):
    job, rows = captioned(photos, reference=None)
    gallery = gallery_of(photos, job, rows)
    assert "03.png" not in {card.row["key"] for card in gallery.cards}
    assert gallery.num_right is None
    assert "cannot decode" in page_of(photos, job, rows)


def test_a_column_called_benchmark_makes_no_questions_of_rows(photos):
    class Noted(CaptionJob):
        schema = pa.schema([("caption", pa.string()), ("benchmark", pa.string())])

    job, rows = captioned(photos)
    noted = rows.append_column("benchmark", pa.array(["steel"] * rows.num_rows))
    numbers = numbers_of(results_of(photos, Noted(settings=job.settings), noted), job)
    assert numbers == numbers_of(results_of(photos, job, rows), job) | {"uri": numbers["uri"]}


def test_a_run_in_which_every_row_failed_has_a_page(photos):
    job, rows = captioned(photos)
    page = page_of(photos, job, rows.filter(rows["error"].is_valid()))
    assert "No row has an answer" in page
    assert "BadImage" in page


def test_the_image_beside_a_caption_is_that_rows_image(photos):
    for card in gallery_of(photos, *captioned(photos, reference=None)).cards:
        number = int(card.row["key"].removesuffix(".png"))
        assert card.images[0] == thumbnail(plain((number, 0, 0), (20, 20)))


def test_few_rows_of_one_verdict_leave_their_places_to_the_other(photos):
    gallery = gallery_of(photos, *questioned(photos, scores=[float(i != 7) for i in range(40)]))
    assert len(gallery.cards) == MOST_CARDS
    assert [card.verdict for card in gallery.cards].count("wrong") <= 1


def test_a_gallery_without_its_input_says_so(photos):
    job, rows = captioned(photos)
    store = output_of(photos, job, rows)
    for path in photos.iterdir():
        path.unlink()
    write_report(store, job, ReadSettings(uri=str(photos)))
    page = store.read("_report/report.html").decode()
    assert "<img" not in page
    assert "could not be read again" in page


@pytest.mark.parametrize(("size", "kind"), [((64, 64), "png"), ((4000, 1000), "jpeg")])
def test_a_thumbnail_is_small_and_made_anew(size, kind):
    uri = thumbnail(plain((200, 10, 10), size))
    assert uri.startswith(f"data:image/{kind};base64,")
    assert len(uri) < 20_000
    assert max(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size) <= SIDE_PIXELS


def test_a_thumbnail_of_no_image_is_refused():
    with pytest.raises(BadImage):
        thumbnail(b"not an image")


def test_a_report_is_written_beside_the_parts(photos, tmp_path):
    job, rows = captioned(photos)
    store = output_of(photos, job, rows, uri=str(tmp_path / "out"), is_finished=False)
    report = write_report(store, job, ReadSettings(uri=str(photos)))
    assert json.loads(store.read("_report/report.json")) == report.numbers
    assert store.read("_report/report.html").decode().startswith("<!doctype html>")
    assert report.page == f"{store.uri}/_report/report.html"
    assert report.numbers["is_finished"] is False


def test_a_report_tells_what_was_odd_about_the_input(photos):
    job, rows = captioned(photos)
    odd = [{"cmyk": 2, "animated": 1}, {"cmyk": 40}]
    parts = [with_oddities(rows.slice(20 * number, 20), counts) for number, counts in enumerate(odd)]
    store = output_of(photos, job, *parts, warnings=[f"x.tar: cut off within {NASTY}"])
    report = write_report(store, job, ReadSettings(uri=str(photos)))
    assert report.numbers["oddities"] == {"cmyk": 42, "animated": 1}
    assert report.numbers["warnings"] == [f"x.tar: cut off within {NASTY}"]
    page = store.read("_report/report.html").decode()
    assert "converted to RGB" in page and "only the first frame" in page and "x.tar: cut off within" in page


def test_every_oddity_is_explained_on_the_page():
    listed = re.sub(r"\([^)]*\)", "", silent_conversions.__doc__.split("The words: ")[1])
    words = re.findall(r"\w+", listed)
    assert set(words) == set(SETTLED)


def finished_at(store, photos, looked=None, **sections):
    """Leave what a run of captions leaves, under the settings of these sections and with a plan read as told."""
    job, rows = captioned(photos)
    values = {
        "read": {"uri": str(photos)},
        "model": {"path": "model"},
        "write": {"uri": store.uri},
        "job": job.settings.model_dump(mode="json"),
    }
    settings = dump_settings(check_settings(RunSettings, {**values, **sections}))
    ledger.freeze_settings(store, {**frozen_of(photos, job), "settings": settings})
    freeze_plan(store, plan_units(looked or ReadSettings(uri=str(photos)), 4))
    store.publish("part-00000.parquet", parquet_bytes(rows))


def test_a_report_is_written_again_by_the_address_of_its_output_alone(photos, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    store = Store(f"{s3.uri}/out")
    finished_at(store, photos)
    assert rewrite_report(store.uri).numbers["rows"] == 40
    assert "BadImage" in store.read("_report/report.html").decode()


def test_a_report_is_told_where_the_stores_are_that_once_were_elsewhere(photos, s3):
    store = Store(f"{s3.uri}/out", s3.settings)
    for path in photos.iterdir():
        Store(f"{s3.uri}/in", s3.settings).publish(path.name, path.read_bytes())
    gone = {"storage": {"endpoint_url": "http://127.0.0.1:9", "patience_s": 0}}
    read = ReadSettings(uri=f"{s3.uri}/in", storage=s3.settings)
    finished_at(store, photos, read, read={"uri": read.uri, **gone}, write={"uri": "s3://before", **gone})
    overrides = [f"{section}.storage.endpoint_url={s3.endpoint_url}" for section in ("read", "write")]
    assert rewrite_report(store.uri, overrides).numbers["rows"] == 40
    assert "data:image/" in store.read("_report/report.html").decode()
    expected = r"'read.limit=3': found another setting, expected only read.storage.\*, write.storage.\* and plan.\*"
    with pytest.raises(ConfigError, match=expected):
        rewrite_report(store.uri, [*overrides, "read.limit=3"])
    with pytest.raises(ConfigError, match=r"read\.storage\.endpoint: unknown setting"):
        rewrite_report(store.uri, [*overrides, "read.storage.endpoint=3"])


def test_an_empty_folder_has_no_report(photos, tmp_path):
    job, _ = captioned(photos)
    with pytest.raises(ReportError, match="found no run in"):
        read_results(Store(str(tmp_path / "out")), job)


def test_a_run_without_a_part_has_no_report_yet(photos):
    job, _ = captioned(photos)
    with pytest.raises(ReportError, match="no committed rows"):
        results_of(photos, job, is_finished=False)


def test_the_demos_index_links_its_pages():
    score = {"score": 0.5, "low": 0.4, "high": 0.6, "n": 12345}
    failing = {"state": "too many failed", "too_many_failed": "9 of 10 results failed", "planned_rows": 1}
    numbers = {"rows": 1, "failed": 0, "seconds": 3700.0, **failing}
    page = {"name": "vqa", "family": "Aria", "about": "x", "numbers": numbers, "score": score, "good": "kept"}
    both = [score, {**score, "score": 0.7}]
    benchmark = {"name": "easy-vqa", "families": ["Aria", "Mllama"], "rows": [("all questions", both)]}
    kept = {True: (3, 4), False: (0, 0)}
    picture = {"picture": None, "text": "a <red> circle", "faults": ["place"], "is_kept": None}
    shares = {"colours": score, "places": score, "outlines": score}
    drawn = {"name": "synthesize", "judge": "Mllama", "drawings": [picture], "scores": shares, "kept": kept}
    text = render("index.html", pages=[page], toy="a toy", benchmark=benchmark, drawn=drawn)
    assert 'href="vqa/_report/report.html"' in text
    assert "50.0\u202f%" in text and "12\u202f345" in text and "1 h 01 min" in text
    assert "Mllama" in text and "70.0\u202f%" in text
    assert "kept, 40.0" in text and "a &lt;red&gt; circle" in text and "no picture" in text
    assert "keeps 3 of the 4 pictures in which the rule finds both shapes." in text
