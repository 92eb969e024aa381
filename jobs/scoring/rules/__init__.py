"""All scoring rules by their ids, which are stored with every score and never change their meaning."""

from collections.abc import Mapping
from functools import partial

from jobs.scoring.rule import Gold, Rule, RuleResult
from jobs.scoring.rules import letters, math, mathvista, mmmu, relaxed, text_match, vqa, yes_no


def _keep(response: str, gold: Gold) -> RuleResult:
    """Keep the response as it is: captions are scored as a set, and programs only once they have run."""
    return RuleResult(response, "ok" if response else "empty", None)


CAPTIONS = "captions/coco"
# It gives no score: HumanEval's programs would have to be run.
KEPT = "text/kept"
# The likeliest of given continuations is the answer: nothing is written, and no text is read.
LIKELIHOOD = ("likelihood/sum", "likelihood/per_character")
# It stops slow expressions by a signal, which works in a process's main thread only: `triptych score` offers this rule,
# but a run, which scores its answers as it writes them, does not.
MAIN_THREAD_ONLY = "math/math_verify"

RULES: Mapping[str, Rule] = {
    text_match.EXACT: text_match.score_exact,
    "exact/official": text_match.score_exact_official,
    "exact/llava_submission": text_match.score_exact_llava,
    "anls/rrc": text_match.score_anls,
    "ocrbench/official": text_match.score_ocrbench,
    "ocrbench/lmms": text_match.score_ocrbench_lmms,
    "vqa/always_norm": partial(vqa.score_vqa, normalize=vqa.normalize_evalai),
    "vqa/official_2021": vqa.score_official,
    "vqa/m4c": partial(vqa.score_vqa, normalize=vqa.normalize_m4c),
    "vqa/vlmevalkit": partial(vqa.score_vqa, normalize=vqa.normalize_vlmevalkit),
    "relaxed/pix2struct": relaxed.score_pix2struct,
    "relaxed/mistral": relaxed.score_mistral,
    "pope/official": partial(yes_no.score_yes_no, parse=yes_no.parse_official),
    "pope/lmms": partial(yes_no.score_yes_no, parse=yes_no.parse_lmms),
    "pope/vlmevalkit": partial(yes_no.score_yes_no, parse=yes_no.parse_vlmevalkit),
    "mcq/prefetch": letters.score_prefetch,
    "mcq/ranked": letters.score_ranked,
    "mcq/first_letter": letters.score_first_letter,
    "ai2d/letter": letters.score_ai2d,
    "scienceqa/lmms": letters.score_scienceqa,
    "scienceqa/llava": letters.score_scienceqa_llava,
    "realworldqa/ranked": letters.score_realworldqa,
    "mmstar/official": letters.score_mmstar,
    "mmmu/official": partial(mmmu.score_mmmu, parse=mmmu.parse_letter),
    "mmmu/lmms": partial(mmmu.score_mmmu, parse=mmmu.parse_letter_lmms),
    "mathvista/official": partial(mathvista.score_mathvista, extract=mathvista.extract),
    "mathvista/rule_extract": partial(mathvista.score_mathvista, extract=mathvista.extract_by_rule),
    "math/hendrycks": partial(math.score_math, is_equal=math.is_equal_latex),
    MAIN_THREAD_ONLY: partial(math.score_math, is_equal=math.is_equal_by_math_verify),
    CAPTIONS: _keep,
    KEPT: _keep,
}
NAMES = (*RULES, *LIKELIHOOD)
# Kinds of rules that need facts which only rows of their own data sets have.
NEEDS_FACTS = ("captions", "mathvista", "mmmu", "ocrbench")


def describe(rule: str) -> str:
    """Say in one line what a rule does: what the function says that tells it from its like."""
    if rule in LIKELIHOOD:
        return f"Take the likeliest of the given continuations, by {rule.partition('/')[2].replace('_', ' ')}."
    if rule == CAPTIONS:
        return "Score all captions of the data set together: CIDEr-D, BLEU and ROUGE-L."
    if rule == KEPT:
        return "Keep the response and give no score: a program would have to be run."
    score = RULES[rule]
    said = list(score.keywords.values())[-1] if isinstance(score, partial) else score
    line = str(said.__doc__).split("\n")[0].removeprefix(f"The rule `{rule}`: ")
    return f"{line[:1].upper()}{line[1:]}"


def suits(rule: str, usual: str) -> bool:
    """Return whether rows that are usually scored by one rule can be scored by another one."""
    kind, usual_kind = rule.partition("/")[0], usual.partition("/")[0]
    return kind == usual_kind or (kind not in NEEDS_FACTS and usual_kind != "captions")


def has_row_scores(rule: str) -> bool:
    """Return whether a rule gives each row a score of its own."""
    return rule not in (CAPTIONS, KEPT)
