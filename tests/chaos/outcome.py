"""What one trouble has come to, and the table of all of them. It knows numbers and words only."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.verdict import Verdict

HEAD = (
    "kind", "times", "rows", "lost", "doubled", "errors that should not be", "input bytes read again, each time",
    "parts equal", "stray files", "seconds lost, each time", "what else was wrong",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How one output came out of some trouble.

    Attributes:
        kind: What was done to it.
        times: How often.
        rows: Of the input.
        verdict: What became of them.
        seconds_lost: Of all starts together, more than the undisturbed run took.
        share_again: Input bytes read more than by the undisturbed run / input bytes; None where they were not counted.
        faults: What else was not as it should be: exit codes, messages.
    """

    kind: str
    times: int
    rows: int
    verdict: Verdict
    seconds_lost: float
    share_again: float | None = None
    faults: tuple[str, ...] = ()

    @property
    def all_faults(self) -> list[str]:
        """Everything that is wrong, in words; empty is well."""
        return [*self.verdict.faults, *self.faults]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table with a line for each kind, its outcomes taken together."""
    kinds = dict.fromkeys(outcome.kind for outcome in outcomes)
    lines = [_line([one for one in outcomes if one.kind == kind]) for kind in kinds]
    return "\n".join(["| " + " | ".join(line) + " |" for line in (HEAD, ["---"] * len(HEAD), *lines)])


def _line(outcomes: Sequence[Outcome]) -> list[str]:
    times = sum(one.times for one in outcomes)
    verdicts = [one.verdict for one in outcomes]
    shares = [one.share_again for one in outcomes if one.share_again is not None]
    others = list(dict.fromkeys(fault for one in outcomes for fault in one.faults))
    return [
        outcomes[0].kind,
        str(times),
        f"{sum(one.rows for one in outcomes):,}",
        str(sum(verdict.lost for verdict in verdicts)),
        str(sum(verdict.doubled for verdict in verdicts)),
        str(sum(len(verdict.wrong_errors) for verdict in verdicts)),
        f"{sum(shares) / times:.2%}" if shares else "–",
        f"{sum(verdict.is_equal and verdict.is_ordered for verdict in verdicts)} of {len(verdicts)}",
        str(sum(len(verdict.strays) for verdict in verdicts)),
        f"{sum(one.seconds_lost for one in outcomes) / times:.0f}",
        "; ".join(others) or "nothing",
    ]
