"""What rules over short answers say in the same way: how reading went, and nothing where no answer is known.

It knows strings and numbers only, no rule.
"""

from jobs.scoring.rule import Gold, Status, Verdict


def judged(response: str, parsed: str | None, gold: Gold, score: float) -> Verdict:
    """Return the verdict on a response.

    A row without gold answers gets no score: its response can be submitted, not judged.

    Args:
        response: What came in; an empty one is `empty`, whatever the rule makes of it.
        parsed: What was read from it; None means `failed`.
        gold: What is known to be right.
        score: What the rule gives for it.
    """
    status: Status = "empty" if not response else "ok" if parsed is not None else "failed"
    return Verdict(parsed, status, score if gold.answers else None)
