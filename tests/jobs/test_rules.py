"""What holds for every rule: it answers for any response, guesses nothing, and gives the same score every time."""

from dataclasses import replace

import pytest

from jobs.benchmarks.datasets import BENCHMARKS
from jobs.scoring.response import Reading, after_marker, clean, no_response, read_response
from jobs.scoring.rule import Gold, RuleResult
from jobs.scoring.rules import NAMES, NEEDS_FACTS, RULES, text_match
from tests.jobs.judged import judged

FACTS = {
    "dataset": "IIIT5K",
    "question_type": "multiple-choice",
    "answer_type": "text",
    "precision": None,
}
RESPONSES = [
    "", " ", "A", "b.", "(C)", "The answer is B.", "yes", "12", "1,000.5%", "nan", "1e400", "-", "{", "\\boxed{",
    "\x00", "ﬁ ß İ", "日本語", "\U0001f600" * 3, "a" * 5000, "\n\n\r\u2028", "None", "__import__('os').system('false')",
]  # fmt: skip
# What two benchmarks call the same kinds of questions.
CALLED = {
    "mathvista": {"multiple-choice": "multi_choice", "open": "free_form"},
    "mmmu": {"free_form": "open"},
}
GOLDS = {
    "an option": Gold(("B",), ("red", "blue", "green"), FACTS),
    "an open question": Gold(("42",), (), {**FACTS, "question_type": "open", "answer_type": "integer"}),
    "a free form": Gold(
        ("4.20",), (), {**FACTS, "question_type": "free_form", "answer_type": "float", "precision": 2.0}
    ),
    "hidden options": Gold((), ("red", "blue"), FACTS),
    "hidden": Gold((), (), {**FACTS, "question_type": "open", "answer_type": "integer"}),
}


def suited(gold, rule):
    """Call a question's kind as the rule's benchmark does."""
    kind = gold.facts["question_type"]
    called = CALLED.get(rule.split("/")[0], {}).get(kind, kind)
    return replace(gold, facts={**gold.facts, "question_type": called})


@pytest.mark.parametrize("gold", GOLDS.values(), ids=GOLDS)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "math/math_verify"])
def test_a_rule_has_an_answer_to_anything_and_it_is_always_the_same(rule, gold):
    gold = suited(gold, rule)
    for response in RESPONSES:
        result = judged(rule, response, gold)
        assert result.status in ("ok", "failed", "refused", "empty")
        assert result.score is None or 0 <= result.score <= 1
        assert judged(rule, response, gold) == result


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.split("/")[0] not in NEEDS_FACTS])
def test_a_rule_that_is_offered_for_rows_of_ones_own_needs_no_facts(rule):
    for gold in (replace(gold, facts={}) for gold in GOLDS.values()):
        assert judged(rule, "B", gold) == judged(rule, "B", gold)


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule not in ("math/math_verify", "captions/coco", "text/kept")]
)
def test_what_cannot_be_read_scores_nothing(rule):
    gold = suited(GOLDS["an option"], rule)
    failed = [judged(rule, response, gold) for response in RESPONSES]
    assert {result.score for result in failed if result.status == "failed"} <= {0.0}


def test_hidden_answers_give_no_score_and_the_response_is_read_all_the_same():
    read = read_response("(B) blue", GOLDS["hidden options"], Reading("mcq/prefetch"), is_truncated=False)
    assert (read["parsed"], read["score"], read["parse_status"]) == ("B", None, "ok")


def test_a_response_that_was_cut_off_is_scored_and_says_so():
    read = read_response("B", GOLDS["an option"], Reading("mcq/prefetch"), is_truncated=True)
    assert (read["score"], read["parse_status"]) == (1.0, "truncated")


def test_other_rules_score_the_same_response():
    reading = Reading("exact/nocase_nopunct", ["exact/official"])
    read = read_response("Blue.", Gold(("blue",)), reading, is_truncated=False)
    assert (read["score"], read["other_scores"]) == (1.0, [{"rule": "exact/official", "score": 0.0}])


def test_a_row_without_an_answer_is_wrong_unless_nothing_was_right():
    assert no_response(Gold(("a",)), Reading("exact/official"))["score"] == 0.0
    assert no_response(Gold(()), Reading("exact/official"))["score"] is None
    assert no_response(None, Reading("exact/official"))["score"] is None


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        ("<think>hm</think> B ", "B"),
        ("hm</think>A</think> B", "B"),
        ("<think>never ends: B", "<think>never ends: B"),
        ("<think>a</think>x<think>b</think>y", "xy"),
        ("<think>a</think>no<think>b</think> yes", "no yes"),
        ("<think>it is\nred</think> yes", "yes"),
        ("it is red</think>yes", "yes"),
        ("<think>never ends", "<think>never ends"),
        ("no tags", "no tags"),
        (" yes ", "yes"),
    ],
)
def test_reasoning_is_left_out_and_nothing_else(response, kept):
    assert clean(response) == kept


def test_other_tags_and_end_tokens_of_stored_responses_can_be_named():
    assert clean("[hm] B <|im_end|>\n", ("[", "]"), ["<|im_end|>"]) == "B"
    assert clean("B <|im_end|>") == "B <|im_end|>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so\nFINAL ANSWER: 12", "12"),
        ("final answer: 1 Final Answer: 2", "2"),
        ("İİ Final Answer: 3", "3"),
        ("**FINAL ANSWER:** B", "B"),
        ("so **Final Answer: 3.5**", "3.5"),
        ("FINAL ANSWER: 2*3*", "2*3*"),
        ("12", "12"),
    ],
)
def test_the_answer_is_what_follows_the_last_marker_whatever_its_case(text, found):
    assert after_marker(text, "FINAL ANSWER:") == found


def test_every_data_set_names_rules_that_there_are():
    named = {rule for benchmark in BENCHMARKS.values() for rule in (benchmark.rule, *benchmark.other_rules)}
    assert named <= set(NAMES)
    assert {rule for benchmark in BENCHMARKS.values() for rule in benchmark.other_rules} <= set(RULES)


@pytest.mark.parametrize("marker", [None, "FINAL ANSWER:"])
@pytest.mark.parametrize("around", [
    "{}", " {}\n", "<think>a</think>\n {} \n", "\u2003{}</s>", "**Final answer: {} **", "a: {}\t",
])  # fmt: skip
def test_a_rule_sees_a_response_without_white_space_around_it(monkeypatch, around, marker):
    seen = []

    def rule(response, gold):
        seen.append(response)
        return RuleResult(None, "failed", 0.0)

    for name in (text_match.EXACT, "ai2d/letter"):
        monkeypatch.setitem(RULES, name, rule)
    reading = Reading(text_match.EXACT, others=("ai2d/letter",), marker=marker, end_tokens=("</s>",))
    for response in (*RESPONSES, "B ", " B", "FINAL ANSWER: \n B \n"):
        read_response(around.format(response), Gold(("B",)), reading, is_truncated=False)
    assert len(seen) == 2 * (len(RESPONSES) + 3) and [text for text in seen if text != text.strip()] == []


@pytest.mark.parametrize(
    "rule", ["ai2d/letter", "exact/official", "mcq/prefetch", "scienceqa/lmms", "relaxed/pix2struct"]
)
def test_white_space_around_an_answer_changes_no_score(rule):
    for response in ("B", " B", "B ", "\n\tB\n", "B\u2003"):
        read = read_response(response, GOLDS["an option"], Reading(rule), is_truncated=False)
        assert (read["score"], read["response"], read["response_clean"]) == (1.0, response, "B")
