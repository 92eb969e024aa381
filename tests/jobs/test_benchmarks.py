"""Rows of published data sets become questions in our words."""

import importlib
import json
import math
import pkgutil

import pyarrow as pa
import pytest

from jobs.benchmarks import datasets
from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.datasets.multiple_choice import stem
from jobs.benchmarks.datasets.text_only import examples_by_subject
from jobs.benchmarks.items import as_column
from jobs.benchmarks.row import BadRow, Row
from jobs.scoring.rules import NAMES
from jobs.vqa import VqaSettings
from tests.jobs.benchmark_rows import ROWS


def item(key, **changes):
    return BENCHMARKS[key].to_item(Row({**ROWS[key], **changes}))


def test_every_data_set_on_arias_card_is_known():
    card = {"mmmu_val", "mathvista_testmini", "docvqa_test", "chartqa", "textvqa_val", "mmbench_test_en_v11"}
    assert {*card, "longvideobench_val", "mmlu", "math", "arc_challenge", "humaneval"} <= set(BENCHMARKS)


def test_no_file_of_data_sets_and_no_data_set_is_left_out():
    names = [one.name for one in pkgutil.iter_modules(datasets.__path__)]
    files = [importlib.import_module(f"{datasets.__name__}.{name}") for name in names]
    keys = [benchmark.key for file in files for benchmark in file.DATA_SETS]
    assert sorted(keys) == sorted(BENCHMARKS)  # a key that stands twice would hide a data set


def test_there_is_a_row_of_every_data_set_here():
    assert set(ROWS) == set(BENCHMARKS)


@pytest.mark.parametrize("key", BENCHMARKS)
def test_a_data_set_is_called_by_its_key_and_has_rules_that_exist(key):
    benchmark = BENCHMARKS[key]
    assert benchmark.key == key
    assert {benchmark.rule, *benchmark.other_rules} <= set(NAMES)
    assert benchmark.rule not in benchmark.other_rules


@pytest.mark.parametrize("key", BENCHMARKS)
def test_nothing_is_read_of_a_row_but_the_columns_that_the_table_names(key):
    benchmark = BENCHMARKS[key]
    named = {*benchmark.needed, *benchmark.used, benchmark.key_column}
    row = Row((column, value) for column, value in ROWS[key].items() if column in named)
    assert item(key) == benchmark.to_item(row)


@pytest.mark.parametrize("key", BENCHMARKS)
def test_facts_can_be_stored_as_json(key):
    facts = item(key).facts
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@pytest.mark.parametrize(
    "key",
    [key for key in BENCHMARKS if "test" in key and key != "mathvista_testmini"],
)
def test_what_a_test_split_hides_is_no_answer(key):
    assert item(key).answers is None


GOLD = {
    "gqa": "no", "docvqa_val": "0.28", "chartqa": "14", "ai2d": "B", "scienceqa_img": "A", "mmmu_val": "B",
    "mathvista_testmini": "22", "mmbench_en_dev": "C", "mmstar": "A", "longvideobench_val": "B", "mmlu": "C",
    "arc_challenge": "A", "math": r"\frac{3}{4}", "nocaps": "A baby is standing in front of a house.",
}  # fmt: skip


@pytest.mark.parametrize("key", GOLD)
def test_an_options_gold_answer_is_its_letter_and_others_are_as_stored(key):
    assert item(key).answers == (GOLD[key],)


@pytest.mark.parametrize(
    ("key", "groups"),
    [
        ("vqav2_val", {("answer_type", "other"), ("question_type", "none of the above")}),
        ("docvqa_val", {("question_types", "figure/diagram"), ("question_types", "layout")}),
        (
            "infovqa_val",
            {
                ("answer_type", "single span"),
                ("operation/reasoning", "comparison"),
                ("operation/reasoning", "sorting"),
            },
        ),
        ("chartqa", {("type", "human")}),
        ("ocrbench", {("group", "Text Recognition"), ("question_type", "Regular Text Recognition")}),
        (
            "mmmu_val",
            {
                ("discipline", "Business"),
                ("subject", "Accounting"),
                ("question_type", "multiple-choice"),
                ("topic_difficulty", "Medium"),
            },
        ),
        ("mmbench_en_dev", {("category", "image_topic"), ("l2-category", "coarse_perception")}),
        ("longvideobench_val", {("duration_group", "15"), ("question_category", "T2A")}),
        ("scienceqa_full", {("grades", "7-12"), ("grade", "grade8"), ("subject", "social science")}),
    ],
)
def test_a_row_is_counted_under_its_cells(key, groups):
    assert groups <= set(item(key).groups)


def test_gqas_questions_are_binary_unless_they_query():
    assert ("form", "binary") in item("gqa").groups
    query = item("gqa", types='{"structural": "query", "semantic": "attr", "detailed": "colour"}')
    assert ("form", "open") in query.groups


def test_a_fact_that_json_does_not_have_costs_its_row_alone():
    with pytest.raises(BadRow, match=r"'isBalanced': nan.*expected values that JSON has"):
        as_column("gqa", item("gqa", isBalanced=math.nan), pa.scalar(None, pa.list_(pa.binary())))


@pytest.mark.parametrize("key", ["gqa", "pope"])
def test_an_empty_gold_answer_is_a_hidden_one(key):
    assert item(key, answer="").answers is None


def test_mathvista_counts_a_row_under_each_of_its_skills():
    skills = [value for name, value in item("mathvista_testmini").groups if name == "skills"]
    assert skills == ["numeric commonsense", "arithmetic reasoning"]


@pytest.mark.parametrize(
    ("key", "cluster"),
    [
        ("vqav2_val", "262148"),
        ("docvqa_val", "14465"),
        ("gqa", "n161313"),
        ("pope", "COCO_val2014_000000310196"),
        ("mmbench_en_dev", "241"),
        ("longvideobench_val", "86CxyhFV9MI"),
        ("chartqa", None),
    ],
)
def test_rows_of_one_picture_document_question_or_video_are_a_cluster(key, cluster):
    assert item(key).cluster == cluster


def test_numbers_that_servers_want_are_numbers_though_copies_hold_texts():
    assert item("docvqa_val").facts == {"questionId": 49153}
    assert item("vqav2_test").facts["question_id"] == 262148000
    assert item("coco_caption").facts == {"image_id": 203564}


def test_a_precision_that_is_stored_as_a_float_is_a_whole_number():
    assert item("mathvista_testmini", precision=2.0).facts["precision"] == 2
    assert item("mathvista_testmini", precision=math.nan).facts["precision"] is None


@pytest.mark.parametrize("options", [["$6", "$7"], "['$6', '$7']", '["$6", "$7"]'])
def test_a_list_may_be_a_list_or_a_text_in_json_or_python(options):
    assert item("mmmu_val", options=options).choices == ("$6", "$7")


def test_latex_in_a_python_literal_is_taken_without_a_warning():
    assert item("mmmu_val", options=r"['\pi', '\\frac{1}{2}']").choices == (r"\pi", r"\frac{1}{2}")


@pytest.mark.parametrize("options", ["__import__('os').getcwd()", "['a'", "{'a': 1}", "[['a']]", None, 3])
def test_a_cell_that_holds_no_list_is_refused_by_its_name_and_never_run(options):
    with pytest.raises(BadRow, match=r"column `options`: found .*, expected a list of texts"):
        item("mmmu_val", options=options)


def test_an_open_question_of_mmmu_may_have_several_gold_answers():
    question = item("mmmu_val", question_type="open", options="[]", answer="['24/7', '3.429']")
    assert (question.answers, question.choices) == (("24/7", "3.429"), ())


def test_a_text_in_brackets_that_is_no_list_of_answers_is_refused():
    with pytest.raises(BadRow, match="column `answer`"):
        item("mmmu_val", question_type="open", answer="[3, 4)]")


@pytest.mark.parametrize("key", ["chartqa", "mathvista_testmini"])
def test_a_gold_answer_in_brackets_is_compared_as_it_is_stored(key):
    assert item(key, answer="[2007, 2008]").answers == ("[2007, 2008]",)
    assert item(key, answer="[Approve, Disapprove]").answers == ("[Approve, Disapprove]",)


@pytest.mark.parametrize("nothing", ["nan", "", None, math.nan])
def test_mmbench_has_four_ways_to_leave_out_a_hint_or_an_option(nothing):
    question = item("mmbench_en_dev", hint=nothing, D=nothing)
    assert question.context == ""
    assert question.choices == ("Drinking coffee", "A man surfing", "Driving buses")


def test_an_option_that_is_missing_between_others_leaves_their_letters():
    assert item("mmbench_en_dev", B="nan").choices == ("Drinking coffee", "", "Driving buses")


@pytest.mark.parametrize(("place", "found"), [(4, "found 4"), (-1, "found -1")])
def test_an_answer_that_is_no_options_place_is_refused(place, found):
    with pytest.raises(BadRow, match=f"column `answer`: {found}, expected the place of one of 4 options"):
        item("scienceqa_img", answer=place)


def test_a_strange_id_of_mmmu_is_refused():
    with pytest.raises(BadRow, match="column `id`: found 'validation_Cooking_1'"):
        item("mmmu_val", id="validation_Cooking_1")


def test_options_inside_a_questions_text_are_found_and_the_text_stays_whole():
    question = item("realworldqa")
    assert question.choices == ("Left", "Straight", "Right")
    assert question.question == ROWS["realworldqa"]["question"]
    assert stem(question).endswith("facing?")


def test_a_question_without_options_in_its_text_has_none():
    question = item("realworldqa", question="How many? Answer with a number. A. b", answer="3")
    assert (question.choices, question.answers) == ((), ("3",))


def test_a_colon_inside_an_option_of_mmstar_splits_nothing():
    text = "Which?\nOptions: A: ratio 1: 2, B: see D: or C, C: none, D: all"
    question = item("mmstar", question=text)
    assert question.choices == ("ratio 1: 2", "see D: or C", "none", "all")
    assert stem(question) == "Which?"


def test_frames_and_subtitles_stand_in_the_order_of_time():
    assert item("longvideobench_val").context == "<image 1>\nGood evening.\n<image 2>\n<image 3>\n<image 4>"


def test_subtitles_of_the_other_form_are_read_too():
    lines = '[{"start": "00:01:02.000", "end": "00:01:08,5", "line": "x"}]'
    with pytest.raises(BadRow, match="column `subtitles`"):
        item("longvideobench_val", subtitles=lines)
    shown = item("longvideobench_val", subtitles=lines.replace(",5", ".500")).context
    assert shown == "<image 1>\n<image 2>\nx\n<image 3>\n<image 4>"


def test_a_video_without_subtitles_or_without_frames_has_what_there_is():
    assert item("longvideobench_val", subtitles=None).context == "<image 1>\n<image 2>\n<image 3>\n<image 4>"
    assert item("longvideobench_val", frame_times=None).context == ""


def test_a_row_is_the_same_whether_its_video_is_looked_at_or_not():
    no_images = pa.scalar([], pa.list_(pa.large_binary()))
    watched, unwatched = (item("longvideobench_val", **seen) for seen in ({}, {"frame_times": None, "subtitles": None}))
    assert watched.context != unwatched.context
    assert as_column("x", watched, no_images)["row_hash"] == as_column("x", unwatched, no_images)["row_hash"]


def test_mmlus_examples_come_from_the_first_five_of_a_subject():
    rows = [{**ROWS["mmlu_without_examples"], "question": f"Question {place}?"} for place in range(7)]
    examples = examples_by_subject(rows)["abstract_algebra"]
    assert [example["question"] for example in examples] == [f"Question {place}?" for place in range(5)]
    context = item("mmlu", examples=examples).context
    assert context.startswith("The following are multiple choice questions (with answers) about abstract algebra.\n\n")
    assert context.endswith("\n\nQuestion 4?\nA. 0\nB. 4\nC. 2\nD. 6\nAnswer: C")


def test_mmlu_is_not_asked_with_fewer_examples_than_five():
    with pytest.raises(BadRow, match="expected a list of 5 questions of the same subject"):
        item("mmlu", examples=[])


def test_what_follows_a_question_is_a_letter_or_an_options_text():
    assert item("arc_challenge").facts["continuations"] == ["A", "B", "C", "D"]
    assert item("arc_challenge_continued").facts["continuations"][0] == "cellular telephone"


@pytest.mark.parametrize("key", BENCHMARKS)
def test_a_data_set_says_whether_its_questions_name_what_may_follow(key):
    assert ("continuations" in item(key).facts) == BENCHMARKS[key].has_continuations


def test_a_rule_of_likelihood_is_refused_where_nothing_may_follow():
    with pytest.raises(ValueError, match="found likelihood/sum, expected a rule that reads answers"):
        VqaSettings(kind="vqa", benchmarks={"pope": {"path": "pope", "rule": "likelihood/sum"}})


def test_answers_that_are_read_are_not_scored_by_likelihood_beside():
    job = VqaSettings(kind="vqa", benchmarks={"mmlu": {"path": "mmlu", "rule": "mcq/prefetch"}}, preset="lmms").build()
    assert job.task("mmlu").reading.others == []
