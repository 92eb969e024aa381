"""All scoring rules by their ids, which are stored with every score and never change their meaning."""

from collections.abc import Mapping

from jobs.scoring.answers.table import RULES as ANSWERS
from jobs.scoring.options.table import RULES as OPTIONS
from jobs.scoring.rule import Gold, Rule, Verdict


def _kept(response: str, gold: Gold) -> Verdict:
    """Keep the response as it is: captions have a score only all together, and programs only once they have run."""
    return Verdict(response, "ok" if response else "empty", None)


CAPTIONS = "captions/coco"
# Nothing here scores it: HumanEval's programs would have to be run.
KEPT = "text/kept"
# The likeliest of given continuations is the answer: nothing is written, and no text is read.
LIKELIHOOD = ("likelihood/sum", "likelihood/per_character")
RULES: Mapping[str, Rule] = {**ANSWERS, **OPTIONS, CAPTIONS: _kept, KEPT: _kept}
# It stops an expression that takes too long by a signal, which only a process's main thread can have: `triptych score`
# knows it, but a run, which scores its answers as it writes them, does not.
MAIN_THREAD_ONLY = "math/math_verify"
NAMES = (*RULES, *LIKELIHOOD)
# Rules that look at what only rows of their own data sets say.
_BOUND = ("captions", "mathvista", "mmmu", "ocrbench")


def suits(rule: str, usual: str) -> bool:
    """Whether rows that are scored by one rule as a rule can be scored by another one."""
    kind, usual_kind = rule.partition("/")[0], usual.partition("/")[0]
    return kind == usual_kind or (kind not in _BOUND and usual_kind != "captions")
