"""Totals of benchmarks: means with their errors, groups, circular questions, F1, captions, and rows that were lost."""

import json

import pyarrow as pa
import pytest

from jobs.benchmarks.datasets import BENCHMARKS, captions
from jobs.benchmarks.items import GROUPS
from jobs.benchmarks.totals import COUNTED, DETAILS, Metric, narrowed, summarize
from jobs.console_text import score_lines
from jobs.scoring.captions.java import CaptionError
from jobs.scoring.captions.metrics import caption_metrics
from pipeline.input.columns import ERROR

OTHERS = pa.list_(pa.struct([("rule", pa.string()), ("score", pa.float64())]))
TYPES = {
    "score": pa.float64(),
    "error": ERROR,
    "groups": GROUPS,
    "other_scores": OTHERS,
    "answers": pa.list_(pa.string()),
}
# Of each way to aggregate that is no mean: a data set that has it.
OF = {
    "circular": "mmbench_en_dev",
    "yes_no": "pope",
    "points": "ocrbench",
    "subjects": "mmlu",
    "captions": "coco_caption",
}
LOST = {"stage": "fetch", "type": "NotFound", "message": "gone"}


def row(place, **values):
    usual = {
        "benchmark": "b",
        "score": 1.0,
        "error": None,
        "row_hash": f"h{place}",
        "finish_reason": "stop",
        "parse_status": "ok",
        "groups": [],
        "cluster": None,
        "other_scores": [],
        "key": str(place),
        "parsed": None,
        "answers": ["x"],
        "response_clean": "x",
        "facts": "{}",
    }
    return {**usual, **values}


def table(rows):
    names = (*COUNTED, *DETAILS)
    return pa.table({name: pa.array([one[name] for one in rows], TYPES.get(name, pa.string())) for name in names})


def aggregation(total):
    return BENCHMARKS[OF[total]].aggregation if total in OF else None


def totals(rows, total="mean", rule="rule", cut=None):
    """Summarize rows as of one part, or of two."""
    detailed = set() if total == "mean" else {"b"}
    pieces = [rows] if cut is None else [rows[:cut], rows[cut:]]
    narrow = pa.concat_tables([narrowed(table(piece), detailed) for piece in pieces]).unify_dictionaries()
    return summarize(narrow, {"b": Metric(rule, aggregation(total))})["b"]


def say(score):
    (line,) = score_lines({"settings": {"job": {"benchmarks": {"b": {}}}}, "scores": {"b": score}})
    return line.removeprefix("b: ")


def groups(**cells):
    return [{"name": name, "value": value} for name, value in cells.items()]


def test_a_mean_has_its_error_its_interval_and_what_counts_beside_it():
    rows = [row(place, score=score) for place, score in enumerate((1.0, 0.5, 0.0, 1.0))]
    found = totals(rows)
    # s of (1, 0.5, 0, 1) is 0.478714; by the square root of 4.
    assert found["score"] == 0.625
    assert found["se"] == pytest.approx(0.4787135538781691 / 2)
    assert (found["interval"], found["n"], found["rule"], found["metric"]) == ("t", 4, "rule", "mean")


def test_right_or_wrong_has_wilsons_interval_and_rows_that_hang_together_a_clustered_one():
    alone = totals([row(place, score=float(place % 2)) for place in range(8)])
    together = totals([row(place, score=float(place // 4), cluster=f"image {place // 4}") for place in range(8)])
    assert alone["interval"] == "wilson"
    assert together["interval"] == "clustered t"
    assert together["se"] > 1.5 * alone["se"]


def test_rows_that_are_all_right_leave_room_for_doubt_though_they_hang_together():
    found = totals([row(place, cluster=str(place % 3)) for place in range(9)])
    assert (found["score"], found["n"], found["high"], found["interval"]) == (1.0, 9, 1.0, "wilson")
    assert found["low"] == pytest.approx(totals([row(place) for place in range(3)])["low"])


def test_an_interval_of_few_rows_stays_inside_nought_and_one():
    found = totals([row(0, score=0.5), row(1, score=1.0)])
    assert (found["low"], found["high"], found["interval"]) == (0.0, 1.0, "t")


def test_a_row_that_names_no_cluster_stands_for_itself():
    clusters = ["a", "a", None, None, None]
    found = totals([row(place, score=float(place % 2), cluster=name) for place, name in enumerate(clusters)])
    named = ["a", "a", "b", "c", "d"]
    same = totals([row(place, score=float(place % 2), cluster=name) for place, name in enumerate(named)])
    assert found == same


def test_a_row_counts_in_each_of_its_cells():
    rows = [
        row(0, score=1.0, groups=[*groups(kind="form"), *groups(kind="table"), *groups(split="val")]),
        row(1, score=0.0, groups=[*groups(kind="table"), *groups(split="val")]),
    ]
    found = totals(rows)
    assert list(found["breakdowns"]) == ["kind", "split"]
    assert {cell: part["score"] for cell, part in found["by"].items()} == {"form": 1.0, "table": 0.5}
    assert found["breakdowns"]["split"]["val"]["n"] == 2


def test_totals_do_not_depend_on_how_rows_lie_in_parts_or_on_their_order():
    rows = [
        row(place, score=place % 3 / 2, groups=groups(kind=str(place % 4)), cluster=str(place % 5))
        for place in range(40)
    ]
    assert totals(rows, cut=7) == totals(rows, cut=33)
    turned = totals(list(reversed(rows)))
    assert turned["score"] == pytest.approx(totals(rows)["score"], abs=1e-15)
    assert turned["by"].keys() == totals(rows)["by"].keys()


def test_a_row_that_could_not_be_read_counts_as_wrong_where_others_have_gold_answers():
    rows = [row(0), row(1, score=None, error=LOST, row_hash=None, answers=None)]
    assert (totals(rows)["score"], totals(rows)["n"], totals(rows)["failed"]) == (0.5, 2, 1)


def test_a_split_without_gold_answers_has_no_score_even_if_a_row_of_it_is_lost():
    rows = [row(0, score=None, answers=None), row(1, score=None, error=LOST, row_hash=None, answers=None)]
    found = totals(rows)
    assert (found["score"], found["n"], found["unscored"], found["failed"]) == (None, 0, 2, 1)


def test_other_rules_count_failed_rows_as_wrong_too():
    rows = [row(0, other_scores=[{"rule": "lenient", "score": 1.0}]), row(1, score=0.0, error=LOST)]
    assert totals(rows)["others"] == {"lenient": 0.5}
    lost = row(2, score=None, error=LOST, row_hash=None, answers=None)
    assert totals([*rows, lost])["others"] == {"lenient": pytest.approx(totals([*rows, lost])["score"])}


def test_a_question_is_right_only_if_every_rotation_is():
    places = [(3, 1.0), (1_000_003, 1.0), (4, 1.0), (1_000_004, 0.0), (2_000_004, 1.0)]
    rows = [
        row(
            index,
            score=score,
            facts=json.dumps({"index": index}),
            cluster=str(index % 1_000_000),
            groups=groups(category=f"c{index % 1_000_000}"),
        )
        for index, score in places
    ]
    found = totals(rows, "circular")
    assert (found["score"], found["n"], found["interval"]) == (0.5, 2, "wilson")
    assert "every rotation right" in say({**found, "missing": 0, "rows": 5})
    assert "2 questions, 5 rows)" in say({**found, "missing": 0, "rows": 5})
    assert found["metrics"] == {"vanilla (first rotation)": 1.0, "all rows": 0.8}
    assert {cell: part["score"] for cell, part in found["by"].items()} == {"c3": 1.0, "c4": 0.0}


def test_a_rotation_without_an_index_is_a_question_that_is_wrong():
    rows = [
        row(3, facts=json.dumps({"index": 3}), cluster="3"),
        row("mmbench.parquet#7", score=None, error=LOST, row_hash=None, answers=None, facts=None),
        row(1_000_003, score=None, error=LOST, row_hash=None, answers=None, facts=None),
    ]
    found = totals(rows, "circular")
    assert (found["score"], found["n"], found["failed"]) == (0.0, 2, 2)
    hidden = [{**one, "score": None, "answers": None} for one in rows]
    assert (totals(hidden, "circular")["score"], totals(hidden, "circular")["unscored"]) == (None, 2)


def test_yes_or_no_has_its_numbers_under_rules_of_other_benchmarks_too():
    rows = [
        row(place, answers=[gold], parsed=gold, groups=groups(category="random"))
        for place, gold in enumerate(("yes", "no"))
    ]
    found = totals(rows, "yes_no", "exact/nocase_nopunct")
    assert (found["score"], found["metrics"]["pooled yes_ratio"]) == (1.0, 0.5)


def test_yes_or_no_has_the_mean_f1_over_categories_for_a_headline():
    said = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no")]
    rows = [
        row(place, score=float(gold == parsed), answers=[gold], parsed=parsed, groups=groups(category=category))
        for category in ("random", "popular")
        for place, (gold, parsed) in enumerate(said)
    ]
    found = totals(rows, "yes_no", "pope/official")
    assert (found["score"], found["interval"], found["n"]) == (0.5, "bootstrap", 8)
    assert found["metrics"]["pooled accuracy"] == 0.5
    assert found["metrics"]["random precision"] == 0.5
    assert found["low"] < 0.5 < found["high"]


def test_f1_says_how_many_rows_nobody_knows_the_label_of():
    rows = [row(place, answers=["yes"], parsed="yes", groups=groups(category="random")) for place in range(3)]
    lost = row(3, score=None, error=LOST, row_hash=None, answers=None)
    found = totals([*rows, lost], "yes_no", "pope/official")
    assert (found["score"], found["n"], found["lost"], found["failed"]) == (1.0, 3, 1, 1)


def test_of_too_many_cells_the_most_frequent_have_a_line():
    rows = [row(place, groups=groups(id=str(max(place, 3)))) for place in range(1200)]
    found = totals(rows)
    assert (len(found["by"]), found["cells_left_out"]) == (1000, 197)
    assert found["by"]["3"]["n"] == 4


def test_points_are_counted_beside_their_share():
    found = totals([row(place, score=float(place < 3)) for place in range(4)], "points")
    assert (found["score"], found["metrics"]) == (0.75, {"points": 3.0})


def test_subjects_have_a_mean_of_their_own():
    rows = [
        row(place, score=score, groups=groups(subject=name))
        for place, (name, score) in enumerate([("law", 1.0), ("law", 1.0), ("law", 0.0), ("art", 0.0)])
    ]
    found = totals(rows, "subjects")
    assert found["score"] == 0.5
    assert found["metrics"] == {"mean over subjects (macro)": pytest.approx(1 / 3)}


def test_captions_have_a_score_only_together():
    texts = ["a dog runs on grass", "a cat sleeps", "two birds fly over water"]
    rows = [
        row(place, score=None, response_clean=text, answers=[text, "something else"])
        for place, text in enumerate(texts)
    ]
    found = totals(rows, "captions", "captions/coco")
    assert found["metric"] == "CIDEr-D"
    assert found["n"] == 3
    assert found["metrics"]["BLEU-4"] > 0.5
    assert found["score"] == found["metrics"]["CIDEr-D"] > 1


def test_without_meteor_captions_keep_their_other_scores(monkeypatch):
    def fail(*given, meteor):
        if meteor:
            raise CaptionError("found no Java")
        return caption_metrics(*given, meteor=False)

    monkeypatch.setattr(captions, "caption_metrics", fail)
    narrow = narrowed(table([row(0, score=None), row(1, score=None, response_clean="a cat")]), {"b"})
    found = summarize(narrow, {"b": Metric("captions/coco", aggregation("captions"), with_meteor=True)})["b"]
    assert found["score"] is not None
    assert (found["metrics"]["METEOR"], found["meteor_fault"]) == (None, "found no Java")


def test_captions_that_java_fails_on_keep_their_count_and_say_why(monkeypatch):
    def fail(*given, **options):
        raise CaptionError("found no Java")

    monkeypatch.setattr(captions, "caption_metrics", fail)
    found = totals([row(0, score=None)], "captions", "captions/coco")
    assert (found["score"], found["n"], found["unscored"], found["fault"]) == (None, 1, 0, "found no Java")
    assert say({**found, "missing": 0}) == "no CIDEr-D of 1 rows: found no Java"
