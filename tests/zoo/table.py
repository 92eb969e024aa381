"""Put the zoo into a Markdown table: each file, what is odd, what is expected of it and what was found."""

from collections.abc import Callable, Iterable, Iterator

from tests.zoo.animal import Animal, Fate, is_as_expected
from tests.zoo.layouts import layouts
from tests.zoo.lines import lines
from tests.zoo.pictures import pictures
from tests.zoo.tables import tables
from tests.zoo.tars import tars


def animals() -> Iterator[Animal]:
    """Give the whole zoo."""
    yield from pictures()
    yield from tars()
    yield from tables()
    yield from lines()
    yield from layouts()


def table(zoo: Iterable[Animal], look: Callable[[Animal], Fate]) -> str:
    """Return the table; its last column tells only what is not as expected."""
    rows = ["| file | what is odd | expected | found |", "|---|---|---|---|"]
    for animal in zoo:
        fate = look(animal)
        found = "the same" if is_as_expected(animal, fate) else f"**{fate}**"
        rows.append(f"| `{animal.name}` | {animal.odd} | {_expected(animal)} | {found} |")
    return "\n".join(rows)


def _expected(animal: Animal) -> str:
    counted = f"; counted: {', '.join(animal.noted)}" if animal.noted else ""
    if animal.trouble is None:
        return f"{animal.expected}{counted}"
    return f"{animal.expected}{counted}{': ' if animal.expected == 'no plan' else '; warning: '}{animal.trouble}"
