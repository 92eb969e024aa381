"""Rules as they are applied: to a response that has been cleaned."""

from jobs.scoring.response import clean
from jobs.scoring.rule import Gold, RuleResult
from jobs.scoring.rules import RULES


def judged(rule: str, response: str, gold: Gold) -> RuleResult:
    """Return what a rule makes of a response; without tags of reasoning, cleaning strips it and no more."""
    return RULES[rule](clean(response), gold)
