"""The rules for questions with a definite answer, by the ids that are stored with their scores."""

from collections.abc import Mapping

from jobs.scoring.options import letters, math, math_verifier, mathvista, mathvista_extract, mmmu, sets
from jobs.scoring.rule import Rule

RULES: Mapping[str, Rule] = {
    "mcq/prefetch": letters.score_prefetch,
    "mcq/ranked": letters.score_ranked,
    "mcq/first_letter": letters.score_first_letter,
    "ai2d/letter": sets.score_ai2d,
    "scienceqa/lmms": sets.score_scienceqa,
    "scienceqa/llava": sets.score_scienceqa_llava,
    "realworldqa/ranked": sets.score_realworldqa,
    "mmstar/official": sets.score_mmstar,
    "mmmu/official": mmmu.score_official,
    "mmmu/lmms": mmmu.score_lmms,
    "mathvista/official": mathvista.score_official,
    "mathvista/rule_extract": mathvista_extract.score_rule_extract,
    "math/hendrycks": math.score_hendrycks,
    "math/math_verify": math_verifier.score_math_verify,
}
