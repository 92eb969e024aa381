"""How many actors a step has: a fixed number, or as many as there is work for between two numbers.

It knows no step, and nothing of what an actor needs.
"""

from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator


class Pool(NamedTuple):
    """At least and at most so many actors; equal where the number is fixed."""

    least: int
    most: int


def pool_of(count: int | tuple[int, int]) -> Pool:
    """Return what a setting of actors means."""
    return Pool(*count) if isinstance(count, tuple) else Pool(count, count)


def _checked(count: Any) -> Any:
    if count is None or _is_number(count):
        return count
    if isinstance(count, list | tuple) and len(count) == 2 and all(map(_is_number, count)) and count[0] <= count[1]:
        return tuple(count)
    raise ValueError(f"found {count!r}, expected a whole number from 1 on, or two of them: [min, max]")


def _is_number(count: Any) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and count >= 1


# Checked as a whole and not by pydantic's union, which would name every kind of value it is not.
ActorCount = Annotated[int | tuple[int, int] | None, BeforeValidator(_checked)]
