"""Rules over short answers, by the quirks of their sources that decide scores."""

import pytest

from jobs.scoring.rule import Gold
from jobs.scoring.rules import RULES, relaxed, text_match, vqa, yes_no
from jobs.scoring.rules.yes_no import YesNo, pope_metrics
from tests.jobs.judged import judged

SHORT_ANSWER_RULES = [
    name for name in RULES if name.split("/")[0] in {"exact", "vqa", "anls", "relaxed", "pope", "ocrbench"}
]


def score(rule, response, *answers, **facts):
    return judged(rule, response, Gold(answers, facts=facts)).score


# One word each for what the form does to it: evalai, official, m4c, vlmevalkit.
FORMS = [
    ("5.", "5", "5", "5", "5."),
    ("9.30", "9.30", "9.30", "9.30", "9.30"),
    ("u.s.a.", "usa", "usa", "usa", "usa"),
    ("v1.x", "v1x", "v1x", "v1x", "v1.x"),
    ("it's", "it's", "it's", "it 's", "it's"),
    ("its", "its", "its", "its", "its"),
    ("Hes", "he's", "he's", "he's", "he's"),
    ("1,,000", "1000", "1 000", "1000", "1 000"),
    ("6,000 t-shirts", "6000 tshirts", "6000 tshirts", "6000 t shirts", "6000 tshirts"),
    ("t-shirt", "t shirt", "t shirt", "t shirt", "t shirt"),
    ("on / off", "on off", "on off", "on off", "on off"),
    ("a-b - c", "ab c", "ab c", "ab c", "ab c"),
    ("None of\tthe\nTen", "0 of 10", "0 of 10", "0 of 10", "0 of 10"),
    ("the", "", "", "", ""),
    ("10%: $5 & 'x'", "10%: $5 & 'x'", "10%: $5 & 'x'", "10%: $5 & 'x'", "10%: $5 & 'x'"),
    (
        "3\u066b5 \u0661,\u0662 a",
        "3\u066b5 \u0661\u0662",
        "3\u066b5 \u0661\u0662",
        "3\u066b5 \u0661\u0662",
        "3\u066b5 \u0661\u0662",
    ),
]


@pytest.mark.parametrize(("text", "evalai", "official", "m4c", "vlmevalkit"), FORMS)
def test_each_source_brings_an_answer_into_its_own_form(text, evalai, official, m4c, vlmevalkit):
    assert vqa.normalize_evalai(text) == evalai
    assert vqa.normalize_official(text) == official
    assert vqa.normalize_m4c(text) == m4c
    assert vqa.normalize_vlmevalkit(text) == vlmevalkit


def test_only_the_first_32_full_stops_go_away():
    assert vqa.normalize_official("." * 40) == "." * 8
    assert vqa.normalize_vlmevalkit("." * 40) == "." * 8


def test_whether_a_mark_stands_apart_is_asked_of_the_text_as_it_came():
    # Once the brackets are blanks the hyphen would stand apart; it does not in the text.
    assert vqa.normalize_official("(a)-b") == "b"
    assert vqa.normalize_official("x(-)y") == "x y"


def test_all_114_contractions_of_the_source_that_can_occur_in_lower_case_are_there():
    assert len(vqa.CONTRACTIONS) == 114
    assert vqa.CONTRACTIONS["couldn'tve"] == vqa.CONTRACTIONS["couldnt've"] == "couldn't've"
    assert vqa.CONTRACTIONS["somebody'd"] == "somebodyd"
    assert not {"its", "shes", "lets", "im", "ive"} & set(vqa.CONTRACTIONS)


@pytest.mark.parametrize(("same", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_answers_give_tenths(same, expected):
    assert vqa.accuracy("x", ["x"] * same + ["y"] * (10 - same)) == expected


def test_fewer_answers_follow_the_same_formula():
    assert vqa.accuracy("x", ["x"]) == 0.0
    assert vqa.accuracy("x", ["x", "x"]) == pytest.approx(1 / 3)
    assert vqa.accuracy("x", ["x", "y", "y"]) == pytest.approx(2 / 9)


def test_the_official_script_compares_as_they_came_where_all_ten_are_equal():
    assert score("vqa/official_2021", "Yes", *["yes"] * 10) == 0.0
    assert score("vqa/always_norm", "Yes", *["yes"] * 10) == 1.0
    assert score("vqa/official_2021", "Yes", *["yes"] * 9, "no") == 1.0
    assert score("vqa/official_2021", "yes", *["yes\n"] * 5, *["yes"] * 5) == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("ax", "ay", 0.5),  # exactly at the threshold
        ("axx", "ayz", 0.0),
        ("New  York", "new york", 1.0),
        ("new  yorj", "new york", 1 - 1 / 9),  # distance without, length with the second blank
        ("straxe", "straße", 1 - 1 / 7),  # capital sharp s is two letters
        ("", "", 1.0),
        ("", "none", 0.0),
    ],
)
def test_anls_measures_collapsed_text_by_the_length_of_what_came(prediction, answer, expected):
    assert text_match.similarity(prediction, [answer]) == pytest.approx(expected, abs=1e-12)
    assert text_match.similarity(prediction, ["?" * 50, answer]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        ("26.25", "25", 1.0),  # 5 % counts
        ("26.3", "25", 0.0),
        ("25", "26.3", 1.0),  # 5 % of the target
        ("2008", "2010", 1.0),
        ("14%", "0.14", 1.0),
        ("14%", "14", 0.0),
        ("14%%", "0.14", 1.0),
        ("1,000", "1000", 0.0),
        ("1_000", "1000", 1.0),
        ("0", "0.0", 0.0),  # a target of 0 needs the same text
        ("nan", "nan", 0.0),
        ("GREEN", "green", 1.0),
    ],
)
def test_relaxed_accuracy_reads_numbers_as_python_does(prediction, target, expected):
    assert score("relaxed/pix2struct", prediction, target) == expected


MISTRAL = [
    ("$1,000.", "1000", True), ("14%", "14", True), ("14%", "0.14", True), ("0.14", "14%", True),
    ("14", "0.14%", False), ("0", "0.0", True), ('"blue"', "Blue", True), ("Australia", "A", True),
    ("blue.", "blue", False),  # end punctuation goes only where there is a digit
]  # fmt: skip


@pytest.mark.parametrize(("prediction", "target", "expected"), MISTRAL)
def test_mistrals_relaxed_accuracy_is_more_lenient(prediction, target, expected):
    assert relaxed.is_near_lenient(prediction, [target]) is expected


def test_mistrals_rule_reads_the_line_after_the_last_mark_and_fails_without_one():
    result = judged("relaxed/mistral", "Answer: 3\nso the **Final Answer:**\n\n**1,050**\nor so", Gold(("1000",)))
    assert (result.parsed, result.status, result.score) == ("1,050", "ok", 1.0)
    result = judged("relaxed/mistral", "1000", Gold(("1000",)))
    assert (result.parsed, result.status, result.score) == (None, "failed", 0.0)


def test_gqas_script_compares_every_character_and_llavas_submission_drops_case_and_full_stops():
    assert [score(f"exact/{name}", "Red..", "red") for name in ("official", "llava_submission")] == [0.0, 1.0]
    assert [score(f"exact/{name}", "red,", "red") for name in ("llava_submission", "nocase_nopunct")] == [0.0, 1.0]
    assert score("exact/official", "red", "red") == 1.0


# Official, lmms, vlmevalkit.
YES_NO = [
    ("yes", "yes", "yes", "yes"),
    ("No.", "no", None, "no"),
    ("NO", "yes", "no", "no"),
    ("nothing", "yes", None, None),
    ("There is, not. Yes", "no", None, "yes"),
    ("Yes. There is no dog", "yes", None, None),
    ("yes,no", "yes", None, None),
    ("no-one", "yes", None, "no"),
    ("", "yes", None, None),
]


@pytest.mark.parametrize(("response", "official", "lmms", "vlmevalkit"), YES_NO)
def test_yes_or_no_is_read_as_each_source_reads_it(response, official, lmms, vlmevalkit):
    assert yes_no.parse_official(response) == official
    assert yes_no.parse_lmms(response) == lmms
    assert yes_no.parse_vlmevalkit(response) == vlmevalkit


def test_what_is_neither_yes_nor_no_is_failed_and_never_guessed():
    assert judged("pope/vlmevalkit", "perhaps", Gold(("no",))).status == "failed"
    assert judged("pope/lmms", "No, none", Gold(("no",))).score == 0.0
    assert judged("pope/official", "", Gold(("yes",))).status == "empty"
    assert score("pope/official", "", "yes") == 1.0


POPE = [
    YesNo("yes", "yes", "random"),
    YesNo("no", "yes", "random"),
    YesNo("yes", None, "popular"),
    YesNo("no", "no", "popular"),
]


def test_popes_numbers_stand_by_category_and_pooled():
    metrics = pope_metrics(POPE)
    assert metrics["per_category"]["random"] == pytest.approx(
        {"accuracy": 0.5, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "yes_ratio": 1.0}
    )
    assert metrics["pooled"] == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.5}


def test_a_division_by_nought_has_no_result_and_no_mean_over_categories():
    metrics = pope_metrics(POPE)
    assert metrics["per_category"]["popular"] == {
        "accuracy": 0.5,
        "precision": None,
        "recall": 0.0,
        "f1": None,
        "yes_ratio": 0.0,
    }
    assert metrics["mean_f1_over_categories"] is None
    assert pope_metrics(POPE[:2])["mean_f1_over_categories"] == pytest.approx(2 / 3)


def test_other_sources_give_noughts_and_other_denominators():
    lmms = pope_metrics(POPE, "pope/lmms")["pooled"]
    assert (lmms["recall"], lmms["yes_ratio"]) == (1.0, 0.5)
    assert pope_metrics(POPE[2:], "pope/lmms")["pooled"]["f1"] == 0.0
    assert pope_metrics(POPE[2:], "pope/vlmevalkit")["pooled"] == {
        "accuracy": 0.5,
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
    }


def test_ocrbench_looks_for_an_answer_anywhere_and_keeps_case_in_formulas_only():
    assert score("ocrbench/official", "The sign: EXIT\nnow", "way out", "exit now", dataset="textVQA") == 1.0
    assert score("ocrbench/official", "x ^\n{2}", "x^{ 2 }", dataset="HME100k") == 1.0
    assert score("ocrbench/official", "X^{2}", "x^{2}", dataset="HME100k") == 0.0
    assert score("ocrbench/official", "x\t^{2}", "x^{2}", dataset="HME100k") == 0.0


def test_full_width_letters_are_folded_by_lmms_alone_and_not_in_formulas():
    assert [score(f"ocrbench/{name}", "ＡＢＣ　１", "abc 1", dataset="svt") for name in ("official", "lmms")] == [
        0.0,
        1.0,
    ]
    assert score("ocrbench/lmms", "ｘ", "x", dataset="HME100k") == 0.0


def test_ocrbench_without_its_data_set_is_an_error():
    with pytest.raises(ValueError, match="found None in OCRBench's column `dataset`"):
        score("ocrbench/official", "x", "x")


@pytest.mark.parametrize("rule", SHORT_ANSWER_RULES)
def test_a_row_without_gold_answers_is_read_and_not_scored(rule):
    result = judged(rule, "Final answer: yes", Gold((), facts={"dataset": "svt"}))
    assert result.score is None
    assert result.status == ("failed" if rule in ("pope/lmms",) else "ok")


@pytest.mark.parametrize("rule", SHORT_ANSWER_RULES)
def test_an_empty_response_is_empty_under_every_rule(rule):
    assert judged(rule, "", Gold(("yes",), facts={"dataset": "svt"})).status == "empty"


def test_the_rule_that_is_stored_by_default_is_in_the_table():
    assert RULES[text_match.EXACT] is text_match.score_exact
