"""What a run costs, and what its plan said of it, in the report."""

import json
from dataclasses import replace

import pytest

from jobs.console_text import report_lines
from jobs.plan import plan_numbers
from jobs.report.numbers import numbers_of
from jobs.report.page import render_markdown, render_report
from jobs.report.results import read_results
from jobs.report.writer import Report, rewrite_report
from pipeline.estimate import Spread
from pipeline.settings import ConfigError, dump_settings
from pipeline.state import ledger
from pipeline.storage.store import Store
from tests.jobs.test_plan import ESTIMATE
from tests.jobs.test_report import captioned, finished_at, gallery_of, output_of

PLACEMENT = {"generate_most": 2, "generate_gpus": 1.0, "check_most": 1, "check_gpus": 0.5}


def held(store, seconds=1800.0, answered=20, first=100.0, started="2026-01-02T00:00:00Z", **placement):
    """Note a start that has held devices."""
    numbers = {"outcome": "done", "seconds": seconds, "answered": answered, "output_tokens": 40, "first_seconds": first}
    ledger.write_attempt(store, started, {**numbers, "started": started, "placement": {**PLACEMENT, **placement}})


@pytest.fixture
def run(photos):
    """A finished run of one start, and its job."""
    job, part = captioned(photos)
    store = output_of(photos, job, part)
    store.delete([path for path in ledger.read_output(store).paths if path.startswith(ledger.ATTEMPTS)])
    held(store, answered=40)
    return store, job


def test_devices_of_both_models_are_held_and_cost(run):
    store, job = run
    numbers = numbers_of(read_results(store, job), job, price=3.0)
    assert (numbers["device_seconds"], numbers["device_seconds_per_1000_rows"]) == (2.5 * 1800, 2.5 * 1800 / 40 * 1000)
    assert numbers["cost"] == pytest.approx(2.5 * 0.5 * 3.0)
    assert numbers_of(read_results(store, job), job)["cost"] is None
    held(store, generate_gpus=0.0, check_gpus=0.0)  # without GPUs, engines
    assert numbers_of(read_results(store, job), job)["device_seconds"] == 3 * 1800


def test_the_page_says_what_a_run_costs_or_how_to_make_it_say_so(run, photos):
    store, job = run
    results, gallery = read_results(store, job), gallery_of(photos, *captioned(photos))
    for price, words in ((3.0, "3.75 <small>1.25 device-hours at 3.00"), (None, "no <code>plan.price_per_device_hour")):
        page = render_report(numbers_of(results, job, price), gallery, job)
        assert words in page and "4\u202f500 <small>" in page
    assert "cost 3.75" in render_markdown(numbers_of(results, job, 3.0), job)


def plan_of(**changes):
    """A plan of forty rows as `triptych plan --json` says it."""
    tokens = {
        name: Spread(mean, 99) for name, mean in (("prompt_tokens", 33), ("image_tokens", 16), ("output_tokens", 2))
    }
    of_forty = replace(
        ESTIMATE, rows=40, rows_left=40, failed_share=0.025, tokens=tokens, check_seconds=20.0, start_seconds=140.0,
        seconds=2000.0, seconds_least=1700.0, seconds_most=2300.0, device_hours=1.375, output_bytes=10_000,
    )  # fmt: skip
    return {**json.loads(json.dumps(plan_numbers(of_forty, 4.0))), **changes}


def kept(store, **changes):
    store.replace("_report/plan.json", json.dumps(plan_of(**changes)).encode())


def test_a_plan_is_set_against_what_the_run_did_line_by_line(run, photos):
    store, job = run
    assert numbers_of(read_results(store, job), job)["plan"] is None
    kept(store)
    numbers = numbers_of(read_results(store, job), job)
    size = sum(len(store.read(path)) for path in ledger.read_output(store).paths if path.startswith("part-"))
    assert numbers["cost"] == pytest.approx(1.25 * 4.0), "the plan's price, where the settings have none"
    lines = {line["name"]: (line["expected"], line["did"], line["off"]) for line in numbers["plan"]["lines"]}
    assert lines == {
        "rows": (40, 40, 0.0),
        "failed_share": (0.025, 0.025, 0.0),
        "loading_seconds": (120.0, 100.0, 0.2),
        "answering_seconds": (1860.0, 1700.0, 0.0941),
        "seconds": (1980.0, 1800.0, 0.1),
        "prompt_tokens": (33, 30.0, 0.1),
        "image_tokens": (16, 16.0, 0.0),
        "output_tokens": (2, 2.0, 0.0),
        "output_bytes": (10_000, size, round(10_000 / size - 1, 4)),
        "device_hours": (1.375, 1.25, 0.1),
        "cost": (5.5, 5.0, 0.1),
    }
    page = render_report(numbers, gallery_of(photos, *captioned(photos)), job)
    for words in ("What the plan said", "33 min 00 s", "+10.0\u202f%", "28 min 00 s to 38 min 00 s in all"):
        assert words in page
    assert "| device-hours | 1.38 | 1.25 | +10.0\u202f% |" in render_markdown(numbers, job)
    said = report_lines(Report(numbers, "page"))
    assert (
        said[0] == "page" and "time in all               planned 33 min 00 s, was 30 min 00 s: off by +10.0 %" in said
    )


def test_a_plan_of_what_was_left_is_set_against_the_starts_since(run):
    store, job = run
    kept(store, rows_left=20, made="2026-01-03T00:00:00Z")
    assert numbers_of(read_results(store, job), job)["plan"]["lines"] == []
    held(store, seconds=990.0, started="2026-01-04T00:00:00Z")
    plan = numbers_of(read_results(store, job), job)["plan"]
    did = {line["name"]: line["did"] for line in plan["lines"]}
    assert (plan["starts"], did["rows"], did["seconds"]) == (1, 20, 990.0)


def test_an_unfinished_run_is_not_held_against_its_plan(photos):
    job, part = captioned(photos)
    store = output_of(photos, job, part.slice(0, 20), is_finished=False)
    kept(store)
    numbers = numbers_of(read_results(store, job), job)
    assert numbers["plan"]["lines"] == []
    assert "is set against the run once it is finished" in render_report(numbers, gallery_of(photos, job, part), job)
    assert "once it is finished" in report_lines(Report(numbers, "page"))[1]


def test_a_plan_is_kept_beside_the_report_for_later_ones(photos, tmp_path):
    store = Store(str(tmp_path / "out"))
    finished_at(store, photos)
    store.publish(ledger.SUCCESS, b"")
    held(store, answered=40)
    (tmp_path / "plan.json").write_text(json.dumps(plan_of()))
    overrides = ["plan.price_per_device_hour=8"]
    first = rewrite_report(store.uri, overrides, str(tmp_path / "plan.json")).numbers
    assert first["cost"] == pytest.approx(10.0) and first["plan"]["lines"]
    (tmp_path / "plan.json").unlink()
    assert rewrite_report(store.uri).numbers["plan"]["lines"]
    for held_there, fault in (
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"rows": 1}', "no rows_left, failed_share"),
    ):
        (tmp_path / "plan.json").write_text(held_there)
        with pytest.raises(ConfigError, match=f"plan.json holds {fault}.*expected what `triptych plan --json` says"):
            rewrite_report(store.uri, (), str(tmp_path / "plan.json"))


def test_a_run_goes_on_whatever_its_price(tmp_path):
    from jobs.start import load_run

    values = {"read": {"uri": "in"}, "model": {"path": "m"}, "write": {"uri": "out"}, "job": {"kind": "caption"}}
    begun = dump_settings(load_run(values, []))
    older = {name: section for name, section in begun.items() if name != "plan"}
    for before in (begun, older):
        now = dump_settings(load_run(values, ["plan.price_per_device_hour=2.5"]))
        ledger.refuse_other_answers({"settings": before, "weights": "w"}, now, "w", "out")
    with pytest.raises(ConfigError, match=r"plan\.price_per_device_hour"):
        load_run(values, ["plan.price_per_device_hour=-1"])
