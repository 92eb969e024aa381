"""Rules over options, numbers and formulas, where the published cases leave something unsaid."""

import math as numbers
import random
from dataclasses import replace

import pytest

from jobs.scoring.pass_at_k import mean_pass_at_k, pass_at_k
from jobs.scoring.response import Reading, guess, likeliest, read_response
from jobs.scoring.rule import Gold, RuleResult
from jobs.scoring.rules import RULES, letters, math, mathvista, mmbench, mmmu
from tests.jobs.judged import judged

COLOURS = Gold(("B",), ("red", "blue", "green", "grey"))
MMMU = replace(COLOURS, facts={"question_type": "multiple-choice"})
LETTER_RULES = [
    name for name in RULES if name.split("/")[0] in {"mcq", "ai2d", "scienceqa", "realworldqa", "mmstar", "mmmu"}
]


def judge(rule, response, gold=COLOURS):
    return judged(rule, response, gold)


def gold_for(rule):
    return MMMU if rule.startswith("mmmu/") else COLOURS


@pytest.mark.parametrize("rule", LETTER_RULES)
def test_the_letter_alone_is_right_by_every_rule(rule):
    assert judge(rule, "B", gold_for(rule)) == RuleResult("B", "ok", 1.0)


@pytest.mark.parametrize("rule", LETTER_RULES)
def test_another_letter_is_read_and_wrong_by_every_rule(rule):
    assert judge(rule, "C", gold_for(rule)) == RuleResult("C", "ok", 0.0)


@pytest.mark.parametrize("rule", LETTER_RULES)
def test_an_empty_response_is_empty_and_wrong(rule):
    result = judge(rule, "", gold_for(rule))
    assert (result.status, result.score) == ("empty", 0.0)


@pytest.mark.parametrize("rule", LETTER_RULES)
def test_where_nothing_can_be_read_nothing_is_guessed(rule):
    assert judge(rule, "hm, well", gold_for(rule)) == RuleResult(None, "failed", 0.0)


@pytest.mark.parametrize("rule", LETTER_RULES)
def test_hidden_gold_answers_leave_the_letter_without_a_score(rule):
    result = judge(rule, "B", replace(gold_for(rule), answers=()))
    assert result.score is None
    assert result.parsed is not None


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(B)", "B"),
        ("It must be B because of the sky over there today", None),
        ("A blue one", "A"),
        ("I would say blue", "B"),
        ("red or blue", None),
        ("The answer is blue, I am quite sure of this, as the sky is blue", "B"),
        ("Answer is **C**, and here is a long line of reasons why D and A are not", "C"),
        ("Z", "Z"),
    ],
)
def test_prefetch_takes_a_late_lone_letter_or_a_phrase_or_the_only_text(response, letter):
    assert judge("mcq/prefetch", response).parsed == letter


def test_prefetch_knows_a_refusal():
    refused = judge("mcq/prefetch", "Sorry, I can't help with images of people yet. B")
    assert refused == RuleResult("Z", "refused", 0.0)


def test_prefetch_reads_no_letter_in_another_tools_note_that_its_service_failed():
    assert judge("mcq/prefetch", "Failed to obtain answer via API: A").parsed is None


def test_an_option_that_is_missing_between_others_is_no_option():
    gold = Gold(("C",), ("red", "", "green"))
    assert judge("mcq/prefetch", "B", gold).parsed is None
    assert judge("mcq/prefetch", "green", gold).parsed == "C"


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A is wrong, so D", "A"),
        ("Not (A) but (C) fits", "C"),
        ("I choose B, not C at all", "C"),
        ("Not (C) here: I choose B instead", "B"),
        ("정답은 C 입니다", "C"),
        ("options: A. or B. remain", "B"),
    ],
)
def test_ranked_prefers_the_start_then_the_end_then_phrases_then_forms(response, letter):
    assert letters.ranked(response, "ABCD") == letter


def test_options_that_stand_in_the_question_are_called_a_to_d():
    assert judge("mcq/ranked", "E", Gold(("A",))).parsed is None
    assert judge("mcq/ranked", "D", Gold(("A",))).parsed == "D"


def test_realworldqa_reads_letters_only_where_the_gold_answer_is_one():
    assert judge("realworldqa/ranked", "I pick b) B", Gold(("B",))).score == 1.0
    assert judge("realworldqa/ranked", "Downhill..", Gold(("Downhill",))) == RuleResult("downhill", "ok", 1.0)
    assert judge("realworldqa/ranked", "the answer is 3", Gold(("3",))).score == 0.0


def test_mmstar_takes_any_word_that_begins_with_the_letter():
    assert judge("mmstar/official", "Because it is so").parsed == "B"
    assert judge("mmstar/official", "The answer is B").score == 1.0
    assert judge("mmstar/official", "Answer: B").score == 0.0


def test_llava_takes_the_phrase_only_once_and_only_for_an_option():
    assert judge("scienceqa/llava", "The answer is B.").score == 1.0
    assert judge("scienceqa/llava", "The answer is B").status == "failed"
    assert judge("scienceqa/llava", "The answer is B. The answer is C.").status == "failed"
    assert judge("scienceqa/llava", "E", COLOURS).status == "failed"


def test_the_two_rules_for_mmmu_differ_on_a_letter_with_a_stop():
    assert judge("mmmu/official", "B. blue", MMMU).status == "failed"
    assert judge("mmmu/lmms", "B. blue", MMMU).score == 1.0
    assert judge("mmmu/lmms", "NASA says so", MMMU).parsed == "A"


def test_of_several_letters_the_last_one_counts():
    assert mmmu.parse_letter("(A) or (B) or (A)", "wxyz") == "A"
    assert mmmu.parse_letter("A or B", "wxyz") == "B"


def test_an_open_answer_may_be_words_or_a_number():
    gold = Gold(("24/7", "3.429"), facts={"question_type": "open"})
    assert judge("mmmu/official", "so the ratio = 3.43", gold).score == 1.0
    assert judge("mmmu/official", "It is 24/7 in lowest terms", gold).score == 1.0
    assert judge("mmmu/official", "7/24", gold) == RuleResult('["7/24", 7.0, 24.0]', "ok", 0.0)


def test_a_single_character_is_not_found_inside_a_word():
    gold = Gold(("d",), facts={"question_type": "open"})
    assert judge("mmmu/official", "models", gold).score == 0.0
    assert judge("mmmu/official", "option d", gold).score == 1.0


def test_mmmu_names_a_kind_of_question_that_it_does_not_know():
    with pytest.raises(ValueError, match="found question_type None, expected 'multiple-choice' or 'open'"):
        judge("mmmu/official", "B", COLOURS)


def test_mmmu_has_thirty_subjects_in_six_disciplines():
    assert (len(mmmu.DISCIPLINES), len(mmmu.DISCIPLINE_OF)) == (6, 30)
    assert mmmu.subject_of("validation_Diagnostics_and_Laboratory_Medicine_3") in mmmu.DISCIPLINE_OF


SHAPES = Gold(("Square",), ("Circle", "Square", "Hexagon"), {"question_type": "multi_choice", "answer_type": "text"})
WHOLE = Gold(("14",), facts={"question_type": "free_form", "answer_type": "integer", "precision": None})
TENTHS = Gold(("2.5",), facts={"question_type": "free_form", "answer_type": "float", "precision": 1.0})
LISTED = Gold(("[1, 2]",), facts={"question_type": "free_form", "answer_type": "list", "precision": None})


def test_mathvista_without_a_judge_takes_bare_answers_only():
    assert judge("mathvista/official", "Square", SHAPES) == RuleResult("Square", "ok", 1.0)
    assert judge("mathvista/official", "14", WHOLE).score == 1.0
    assert judge("mathvista/official", "The answer is 14", WHOLE) == RuleResult(None, "failed", 0.0)


def test_a_judges_extraction_is_scored_as_the_rules_own():
    assert mathvista.score_extraction("(b)", SHAPES) == RuleResult("Square", "ok", 1.0)
    assert mathvista.score_extraction("14.9", WHOLE) == RuleResult("14", "ok", 1.0)
    assert mathvista.score_extraction("fourteen", WHOLE) == RuleResult(None, "failed", 0.0)


def test_a_precision_that_is_stored_as_a_float_rounds():
    assert judge("mathvista/official", "2.4999", TENTHS).score == 1.0


def test_an_empty_extraction_chooses_the_shortest_option():
    assert mathvista.score_extraction("", SHAPES) == RuleResult("Circle", "empty", 0.0)


def test_mathvista_says_which_facts_are_missing():
    with pytest.raises(ValueError, match=r"found facts \[\], expected also \['question_type', 'answer_type'\]"):
        judge("mathvista/official", "B", COLOURS)
    with pytest.raises(ValueError, match="found a multi_choice question without choices"):
        judge("mathvista/official", "B", replace(SHAPES, choices=()))
    with pytest.raises(ValueError, match="found answer_type 'text' of a free_form question"):
        mathvista.normalize("x", Gold((), facts={"question_type": "free_form", "answer_type": "text"}))


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"We get 3 and 4, so \boxed{14}", WHOLE),
        ("There are 3 rows of 4; the answer is 14.", WHOLE),
        ("Answer: 14 m2", WHOLE),
        ("3-14", WHOLE),
        ("First 7, then 14", WHOLE),
        ("**Answer:** $2.5$", TENTHS),
        ("The answer is B.", SHAPES),
        ("The correct answer is **(B) Square**", SHAPES),
        ("It looks like a square to me", SHAPES),
        ("Answer: [1, 2]", LISTED),
    ],
)
def test_our_own_extractor_finds_the_last_answer_of_the_right_kind(response, gold):
    assert judge("mathvista/rule_extract", response, gold).score == 1.0
    assert judge("mathvista/official", response, gold).status == "failed"


def test_our_own_extractor_does_not_guess():
    assert judge("mathvista/rule_extract", "A circle or a square", SHAPES) == RuleResult(None, "failed", 0.0)
    assert mathvista.extract_by_rule("no idea", WHOLE) is None


ROTATIONS = [(1, 1.0), (1_000_001, 1.0), (2, 1.0), (1_000_002, 0.0), (3, 0.0)]


def test_a_question_is_right_only_if_every_rotation_is():
    found = mmbench.circular(ROTATIONS)
    assert found.hits == {1: 1, 2: 0, 3: 0}
    assert found.first_rotation == 2 / 3
    assert found.all_rows == 3 / 5


def test_the_order_of_rows_does_not_matter():
    rows = list(ROTATIONS)
    random.Random(0).shuffle(rows)
    assert mmbench.circular(rows) == mmbench.circular(ROTATIONS)


def test_a_question_without_its_first_rotation_is_left_out():
    found = mmbench.circular([*ROTATIONS, (2_000_009, 1.0)])
    assert (list(found.hits), found.first_rotation, found.all_rows) == ([1, 2, 3], 2 / 3, 4 / 6)


def test_a_rotation_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="found index 3 twice"):
        mmbench.circular([*ROTATIONS, (3, 1.0)])


def test_math_compares_the_last_box_as_latex_in_one_way_of_writing():
    gold = Gold((r"\frac{1}{2}",))
    assert judge("math/hendrycks", r"First \boxed{2}, then \boxed{\dfrac12}.", gold) == RuleResult(
        r"\dfrac12", "ok", 1.0
    )
    assert judge("math/hendrycks", r"\boxed{0.5}", gold).score == 1.0
    assert judge("math/hendrycks", r"\boxed{.50}", gold).score == 0.0
    assert judge("math/hendrycks", "1/2", gold) == RuleResult(None, "failed", 0.0)


def test_latex_that_cannot_be_normalized_is_compared_as_it_is():
    with pytest.raises(math.NotComparable, match=r"found nothing after \\sqrt"):
        math.normalize(r"2\sqrt")
    assert math.is_equal_latex(r"2\sqrt", r"2\sqrt")
    assert not math.is_equal_latex(r"2\sqrt", r"2 \sqrt")


def test_math_verify_goes_by_meaning():
    gold = Gold((r"\frac{\sqrt{2}}{2}",))
    assert judge("math/math_verify", r"\boxed{\frac{1}{\sqrt2}}", gold).score == 1.0
    assert judge("math/hendrycks", r"\boxed{\frac{1}{\sqrt2}}", gold).score == 0.0
    assert math.is_equal_by_math_verify("5.", "5")


def test_math_verify_says_that_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(math, "find_spec", lambda name: None)
    with pytest.raises(math.MathVerifyMissing, match=r"pip install 'triptych\[math\]'"):
        judge("math/math_verify", r"\boxed{1}", Gold(("1",)))


def test_pass_at_k_is_the_share_of_draws_with_a_program_that_passes():
    # Of the ten pairs among five programs three hold none of the two that pass.
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7, abs=1e-12)
    assert numbers.isclose(mean_pass_at_k([(5, 2), (5, 0)], 2), 0.35)


def test_pass_at_k_is_refused_where_there_are_fewer_than_k_programs():
    with pytest.raises(ValueError, match="found 1 of 2 problems with fewer than 3 programs"):
        mean_pass_at_k([(5, 2), (2, 0)], 3)
    with pytest.raises(ValueError, match="found 3 passed of 2 programs"):
        pass_at_k(2, 3, 1)


def test_the_likeliest_continuation_may_differ_per_character():
    logprobs, continuations = [-4.0, -6.0], ["cat", "elephant"]
    assert likeliest(logprobs, continuations, per_character=False) == 0
    assert likeliest(logprobs, continuations, per_character=True) == 1


def test_continuations_without_their_log_probabilities_are_refused():
    with pytest.raises(ValueError, match="found 1 log-probabilities of 2 continuations"):
        likeliest([-1.0], ["A", "B"], per_character=False)
    with pytest.raises(ValueError, match="found an empty continuation"):
        likeliest([-1.0, -2.0], ["A", ""], per_character=True)


def guesses(seed):
    return [guess(COLOURS, seed, f"row-{number}").parsed for number in range(4000)]


def test_a_guess_depends_on_seed_and_row_alone():
    drawn = guesses(7)
    assert drawn == guesses(7)
    assert drawn != guesses(8)
    assert all(900 < drawn.count(letter) < 1100 for letter in "ABCD")


def test_only_what_could_not_be_read_is_guessed_and_it_still_counts_as_failed():
    reading = Reading("mcq/ranked", guess_as=(1, "x"))
    read = read_response("C", COLOURS, reading, is_truncated=False)
    assert (read["parsed"], read["parse_status"], read["score"]) == ("C", "ok", 0.0)
    found = read_response("hm, well", COLOURS, reading, is_truncated=False)
    assert found["parse_status"] == "failed"
    assert found["parsed"] in "ABCD"
    assert found["score"] == float(found["parsed"] == "B")
