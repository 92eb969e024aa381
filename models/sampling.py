"""What each field of a Sampling may hold: one rule for what a run's settings say and what `models.ask` is given."""

import math
from dataclasses import asdict
from numbers import Integral, Real
from typing import Annotated, Any, get_args

from annotated_types import Ge, Gt, Le, Lt

from models.types import BadRequest, Sampling

NUM_SEEDS = 2**63
# Far beyond what shows anything but noise, and far below what scores can be multiplied with and stay numbers.
MOST_GUIDANCE = 1000
# Scores are divided by it in float32, whose greatest number is 3e38: from here on scores up to 1e8 stay finite. Below
# it they overflow, and below 1e-45 the division is one by 0; the token drawn would be any of those that overflowed.
LEAST_TEMPERATURE = 1e-30


NewTokens = Annotated[int, Ge(1)]
Temperature = Annotated[float, Ge(0)]
TopK = Annotated[int, Ge(0)]
TopP = Annotated[float, Gt(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(NUM_SEEDS)]
GuidanceScale = Annotated[float, Ge(-MOST_GUIDANCE), Le(MOST_GUIDANCE)]

# By field, what it may be.
_NUMBERS = {
    "max_new_tokens": NewTokens, "temperature": Temperature, "top_k": TopK, "top_p": TopP, "seed": Seed,
    "guidance_scale": GuidanceScale,
}  # fmt: skip


def sampling_fault(name: str, value: object) -> str | None:
    """Say what is wrong with the value of a Sampling's field, beginning with `found`; None if nothing is."""
    expected = _expected_stop(value) if name == "stop" else _expected_number(name, value)
    return None if expected is None else f"found {value!r}, expected {expected}"


def check_sampling(sampling: Sampling) -> None:
    """Check all fields.

    Raises:
        BadRequest: Some hold what they cannot; each is named.
    """
    found = {name: sampling_fault(name, value) for name, value in asdict(sampling).items()}
    faults = [f"sampling.{name}: {fault}" for name, fault in found.items() if fault is not None]
    if faults:
        raise BadRequest("; ".join(faults))


def _expected_stop(value: object) -> str | None:
    is_well = isinstance(value, tuple | list) and all(isinstance(text, str) and text for text in value)
    return None if is_well else "several texts, none of them empty, which would end every answer at once"


def _expected_number(name: str, value: Any) -> str | None:
    """Say what a number should be; None if it is."""
    kind, *limits = get_args(_NUMBERS[name])
    number, words = (Integral, "a whole number") if kind is int else (Real, "a finite number")
    is_number = isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
    if name == "temperature" and is_number and 0 < float(value) < LEAST_TEMPERATURE:
        return f"0 for the likeliest token, or a number from {LEAST_TEMPERATURE:g} on"
    if is_number and all(_holds(value, limit) for limit in limits):
        return None
    return " ".join([words, " and ".join(map(_said, limits))]).strip()


def _holds(value: Any, limit: Ge | Gt | Le | Lt) -> bool:
    match limit:
        case Ge(least):
            return bool(value >= least)
        case Gt(bound):
            return bool(value > bound)
        case Le(most):
            return bool(value <= most)
        case Lt(bound):
            return bool(value < bound)


def _said(limit: Ge | Gt | Le | Lt) -> str:
    match limit:
        case Ge(least):
            return f"from {least} on"
        case Gt(bound):
            return f"above {bound}"
        case Le(most):
            return f"at most {most}"
        case Lt(bound):
            return f"below {bound}"
