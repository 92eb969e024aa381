"""What to do about an answer that could not be read, beside counting it as wrong: guess it, or credit a guess.

Both depend on the row alone, never on the order of rows or on a state shared by them.
"""

import hashlib
from collections.abc import Sequence

from jobs.scoring.rule import Gold, Verdict


def random_choice(run_seed: int, sample_id: str, options: Sequence[str]) -> str:
    """Return one of some options, the same one for the same seed and row wherever and whenever it is asked for.

    Raises:
        ValueError: There is nothing to choose from.
    """
    if not options:
        raise ValueError(f"found no options to choose from for {sample_id!r}, expected at least one")
    digest = hashlib.blake2b(f"{run_seed}\0{sample_id}".encode(), digest_size=16).digest()
    return options[int.from_bytes(digest, "big") % len(options)]


def expected_credit(num_options: int) -> float:
    """Return the share of right answers that guesses among so many options have.

    Raises:
        ValueError: There is no option.
    """
    if num_options < 1:
        raise ValueError(f"found {num_options} options, expected at least one")
    return 1 / num_options


def guessed(verdict: Verdict, gold: Gold, *, run_seed: int, sample_id: str, options: Sequence[str]) -> Verdict:
    """Replace what could not be read by a random option. The status stays `failed`, so that failures are counted."""
    if verdict.status != "failed":
        return verdict
    option = random_choice(run_seed, sample_id, options)
    return Verdict(option, verdict.status, float(option in gold.answers) if gold.answers else None)
