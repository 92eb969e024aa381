"""Two scored outputs are compared row by row, or not at all."""

import json

import pytest

from jobs.__main__ import main
from jobs.evaluation.compare import below_threshold, compare
from jobs.evaluation.console import describe_comparisons, markdown
from jobs.report.results import ReportError
from pipeline.storage.store import Store
from tests.jobs.scored import FAILED, rows, write_scored


@pytest.fixture
def outputs(tmp_path):
    """Write the rows of two outputs; return the outputs."""

    def write(a, b, origin=None):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return Store(write_scored(folder / "a", a, origin)), Store(write_scored(folder / "b", b, origin))

    return write


def test_rows_are_aligned_by_key_whatever_their_order(outputs):
    a = rows([1.0, 0.0, 0.0, 1.0])
    (found,) = compare(*outputs(a, rows([1.0, 1.0, 0.0, 0.0])[::-1]))
    assert (found.wins, found.losses, found.ties) == (1, 1, 2)
    assert found.difference == 0.0
    assert found.lost == ("3",)


def test_right_and_wrong_are_tested_exactly(outputs):
    first, second = [1.0] * 8 + [0.0] * 3 + [1.0] * 4, [0.0] * 8 + [1.0] * 3 + [1.0] * 4
    (found,) = compare(*outputs(rows(first), rows(second)))
    assert found.test == "mcnemar/exact"
    assert found.p == pytest.approx(0.2265625, abs=1e-12)  # the binomial test of 3 in 11
    assert (found.a.score, found.b.score) == (pytest.approx(12 / 15), pytest.approx(7 / 15))
    assert found.difference == pytest.approx(-5 / 15)


def test_partial_scores_are_tested_by_drawing_rows_again_and_alike_every_time(outputs):
    sides = outputs(rows([0.3, 0.6, 0.9, 1.0, 0.0] * 8), rows([0.6, 0.6, 1.0, 1.0, 0.3] * 8))
    (found,) = compare(*sides)
    assert found.test == "bootstrap/paired"
    assert found.p < 0.01
    assert compare(*sides) == [found]


def test_the_error_is_larger_where_rows_hang_together(outputs):
    a, b = rows([1.0, 1.0, 0.0, 0.0] * 10), rows([0.0] * 40)
    (alone,) = compare(*outputs(a, b))
    for row in (*a, *b):
        row["cluster"] = f"document {row['index'] // 2}"
    (together,) = compare(*outputs(a, b))
    assert (alone.clusters, together.clusters) == (None, 20)
    assert alone.difference == together.difference
    assert together.error > alone.error * 1.3


def test_rows_without_a_cluster_stand_for_themselves_beside_those_with_one(outputs):
    a, b = rows([1.0, 0.0, 1.0, 0.0]), rows([0.0, 0.0, 1.0, 1.0])
    for row in (*a, *b):
        row["cluster"] = None if row["index"] > 1 else "image"
    assert compare(*outputs(a, b))[0].clusters == 3


def test_a_circular_question_counts_once_and_only_if_all_its_rotations_are_right(outputs):
    a, b = rows([1.0] * 6 + [0.0, 1.0, 1.0], benchmark="bench"), rows([1.0] * 4 + [0.0] * 5, benchmark="bench")
    for row in (*a, *b):
        row["cluster"] = str(row["index"] // 3)
    origin = {"settings": {"job": {"benchmarks": {"bench": {"dataset": "mmbench_en_dev"}}}}}
    (found,) = compare(*outputs(a, b, origin))
    assert (found.counted, found.n, found.clusters) == ("question", 3, None)
    assert (found.a.score, found.b.score, found.lost) == (pytest.approx(2 / 3), pytest.approx(1 / 3), ("1",))


def test_a_row_that_could_not_even_be_read_is_wrong_on_both_sides(outputs):
    a, b = rows([1.0, 0.0, None]), rows([1.0, 1.0, None])
    for side in (a, b):
        side[2].update(FAILED, score=None, row_hash=None, answers=None)
    (found,) = compare(*outputs(a, b))
    assert (found.n, found.unscored, found.a.score) == (3, 0, pytest.approx(1 / 3))


def test_captions_are_compared_by_each_images_cider(outputs):
    references = [["a cat on a mat", "the cat sits"], ["a dog in the park", "one dog runs"], ["two red buses"]]
    columns = {"benchmark": "coco_caption", "rule": "captions/coco"}
    a, b = rows([None] * 3, **columns), rows([None] * 3, **columns)
    for place, row in enumerate((*a, *b)):
        row.update(answers=references[place % 3], response_clean=references[place % 3][0])
    b[1]["response_clean"] = "a plane"
    b[2]["response_clean"] = None
    (found,) = compare(*outputs(a, b))
    assert (found.counted, found.n, found.test) == ("image", 3, "bootstrap/paired")
    assert (found.wins, found.losses, found.ties) == (0, 2, 1)
    assert found.a.score > found.b.score > 0
    assert found.tokenizer in ("ptb", "fallback")


def test_several_benchmarks_are_corrected_for_their_number(outputs):
    a = rows([1.0] * 8 + [0.0] * 2) + rows([1.0] * 10, benchmark="pope", rule="pope/official")
    b = rows([0.0] * 8 + [1.0] * 2) + rows([0.0] * 10, benchmark="pope", rule="pope/official")
    docvqa, pope = compare(*outputs(a, b))
    assert (docvqa.benchmark, pope.benchmark) == ("docvqa_val", "pope")
    assert pope.p_holm == pytest.approx(2 * pope.p)
    assert docvqa.p_holm == docvqa.p


def test_failed_and_truncated_rows_are_counted_beside_the_score(outputs):
    b = rows([1.0, 1.0, 0.0])
    b[1].update(FAILED)
    b[2].update(parse_status="truncated", finish_reason="length")
    (found,) = compare(*outputs(rows([1.0, 1.0, 1.0]), b))
    assert (found.b.failed, found.b.truncated, found.b.score) == (1, 1, pytest.approx(1 / 3))
    assert (found.a.failed, found.a.truncated) == (0, 0)


def test_rows_without_gold_answers_are_counted_and_left_out(outputs):
    (found,) = compare(*outputs(rows([1.0, None, 0.0]), rows([1.0, None, 1.0])))
    assert (found.n, found.unscored, found.wins) == (2, 1, 1)


REFUSED = [
    ({"key": "9"}, r"1 only in A \(0\) and 1 only in B \(9\)"),
    ({"row_hash": "other"}, r"1 rows whose question, answers or options differ between A and B \(0\)"),
    ({"row_hash": None}, r"1 rows whose question, answers or options differ"),
    ({"image_hash": "other"}, r"1 rows whose images differ"),
    ({"rule": "exact/official"}, r"scores by anls/rrc in A and by anls/rrc, exact/official in B"),
    ({"benchmark": "other"}, r"found other only in .*b, expected the same benchmarks"),
    ({"score": None}, r"1 rows with a score on one side only"),
    ({"key": "1"}, r"1 keys more than once in docvqa_val"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_outputs_of_other_rows_or_rules_are_refused(outputs, change, said):
    a, b = rows([1.0, 0.0]), rows([1.0, 0.0])
    b[0].update(change)
    with pytest.raises(ReportError, match=said):
        compare(*outputs(a, b))


def test_other_rules_are_refused_even_where_each_side_has_one(outputs):
    with pytest.raises(ReportError, match="one rule for both; `triptych score`"):
        compare(*outputs(rows([1.0, 0.0]), rows([1.0, 0.0], rule="exact/official")))


def test_rows_of_one_benchmark_by_two_rules_are_refused_even_where_both_sides_agree(outputs):
    sides = [rows([1.0, 0.0]), rows([1.0, 0.0])]
    for side in sides:
        side[1]["rule"] = "exact/official"
    with pytest.raises(ReportError, match="expected one rule for both"):
        compare(*outputs(*sides))


def test_images_that_were_not_looked_at_are_no_difference(outputs):
    (found,) = compare(*outputs(rows([1.0, 0.0]), rows([1.0, 0.0], image_hash=None)))
    assert found.n == 2


def test_a_benchmark_on_one_side_only_is_left_out_if_others_are_named(outputs):
    a = rows([1.0, 0.0]) + rows([1.0], benchmark="pope")
    sides = outputs(a, rows([1.0, 0.0]))
    with pytest.raises(ReportError, match="found pope only in"):
        compare(*sides)
    assert [one.benchmark for one in compare(*sides, benchmarks=["docvqa_val"])] == ["docvqa_val"]
    with pytest.raises(ReportError, match="expected rows of pope"):
        compare(*sides, benchmarks=["pope"])


def test_a_benchmark_without_any_score_is_refused(outputs):
    with pytest.raises(ReportError, match="no row with a score"):
        compare(*outputs(rows([None, None]), rows([None, None])))


def test_a_benchmark_whose_gold_answers_are_hidden_is_left_out_with_a_word_unless_it_is_named(outputs, caplog):
    hidden = rows([None, None], benchmark="docvqa_test", answers=None)
    sides = outputs(rows([1.0, 0.0]) + hidden, rows([1.0, 1.0]) + hidden)
    assert [one.benchmark for one in compare(*sides)] == ["docvqa_val"]
    assert "gold answers are hidden: docvqa_test" in caplog.text
    with pytest.raises(ReportError, match="docvqa_test: found no row with a score"):
        compare(*sides, benchmarks=["docvqa_test"])


def test_it_is_said_that_pope_is_compared_by_right_answers(outputs):
    found = compare(*outputs(*[rows([1.0, 0.0], benchmark="pope", rule="pope/official")] * 2))
    assert "  right answers are compared, not the F1 that reports have" in describe_comparisons(found)
    assert "pope: right answers are compared, not the F1" in markdown("a", "b", found)


def test_a_gate_looks_at_the_difference_and_if_asked_at_its_interval(outputs):
    found = compare(*outputs(rows([1.0] * 20), rows([0.0] + [1.0] * 19)))
    assert [one.benchmark for one in below_threshold(found, -0.01, only_sure=False)] == ["docvqa_val"]
    assert below_threshold(found, -0.01, only_sure=True) == []
    assert below_threshold(found, -0.05, only_sure=False) == []
    surely = compare(*outputs(rows([1.0] * 20), rows([0.0] * 19 + [1.0])))
    assert below_threshold(surely, -0.01, only_sure=True) == surely


def test_a_gate_on_too_few_rows_for_an_interval_does_not_pass_in_silence(outputs):
    found = compare(*outputs(rows([1.0]), rows([0.0])))
    with pytest.raises(ReportError, match="too few rows of docvqa_val for an interval"):
        below_threshold(found, -0.01, only_sure=True)


def test_the_command_says_the_difference_and_fails_below_its_threshold(outputs, tmp_path, capsys):
    a, b = (side.uri for side in outputs(rows([1.0] * 4), rows([1.0, 1.0, 1.0, 0.0], model="emu3")))
    assert main(["compare", a, b, "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert "docvqa_val (anls/rrc, 4 rows)" in said
    assert "B - A       -25.00 (95 % interval" in said
    assert "first losses: 3" in said
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["comparisons"][0]["b"] | {"error": 0} == {
        "score": 0.75, "error": 0, "models": ["emu3"], "presets": ["lmms"], "failed": 0, "truncated": 0,
    }  # fmt: skip
    assert main(["compare", a, b, "--threshold", "-0.3"]) == 0
    assert main(["compare", a, b, "--threshold", "-0.01", "--significant"]) == 0
    capsys.readouterr()
    assert main(["compare", a, b, "--threshold", "-0.01"]) == 1
    assert "below the threshold of -1.00: docvqa_val -25.00" in capsys.readouterr().err


def test_a_table_for_people_can_be_had(outputs, tmp_path):
    b = rows([1.0, 1.0, 0.0, 0.0])
    b[3].update(FAILED)
    a, b = (side.uri for side in outputs(rows([1.0, 1.0, 1.0, None]), [*b[:3], {**b[3], "score": None}]))
    assert main(["compare", a, b, "--markdown", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    assert f"A: `{a}`" in text
    assert "| docvqa_val | `anls/rrc` | 3 rows | 100.00 ± 0.00 | 66.67 ± 33.33 | -33.33 |" in text
    assert "| 0 / 1 / 2 |" in text
    assert "docvqa_val: 1 failed and 0 cut off in B; 1 rows have no score on either side." in text


def test_only_settings_that_reach_the_outputs_are_taken(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path), "job.rule=anls/rrc"]) == 2
    assert "found another setting, expected only write.storage.*" in capsys.readouterr().err


def test_a_refusal_is_one_line_and_a_failure(outputs, tmp_path, capsys):
    a, _ = outputs(rows([1.0]), rows([1.0]))
    (tmp_path / "empty").mkdir()
    assert main(["compare", a.uri, str(tmp_path / "empty")]) == 1
    said = capsys.readouterr().err
    assert "found no part-*.parquet in" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "ways"), [("fallback", ("none", "random")), ("reasoning", (["<a>", "</a>"], ["(", ")"]))]
)
def test_answers_that_were_read_otherwise_are_refused(tmp_path, name, ways):
    stores = [
        Store(write_scored(tmp_path / way, rows([1.0]), {"settings": {"job": {name: value}}}))
        for way, value in zip("ab", ways, strict=True)
    ]
    with pytest.raises(ReportError, match=rf"job\.{name}: found .* in A and .* in B"):
        compare(*stores)
