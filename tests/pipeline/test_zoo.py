"""Every nasty file of the zoo becomes what its keeper expects, and the table that people read says so."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.animal import Animal, Fate, fate_of, is_as_expected, open_processor
from tests.zoo.table import animals, table

PAGE = Path(__file__).parents[2] / "docs/inputs.md"
ZOO = list(animals())


@pytest.fixture(scope="module")
def look() -> Callable[[Animal], Fate]:
    """Looks at an animal, and only once."""
    processor = open_processor()
    fates: dict[str, Fate] = {}

    def look(animal: Animal) -> Fate:
        if animal.name not in fates:
            fates[animal.name] = fate_of(animal, processor)
        return fates[animal.name]

    return look


@pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
def test_a_nasty_file_is_answered_or_named(animal: Animal, look: Callable[[Animal], Fate]) -> None:
    fate = look(animal)
    assert is_as_expected(animal, fate), fate


def test_the_zoo_is_large_and_every_animal_has_a_name_of_its_own() -> None:
    assert len(ZOO) >= 150
    assert [name for name, count in Counter(animal.name for animal in ZOO).items() if count > 1] == []


def test_the_page_about_inputs_shows_the_zoo_as_it_is(look: Callable[[Animal], Fate]) -> None:
    assert table(look) in PAGE.read_text(encoding="utf-8"), "print it anew: python -m tests.zoo"
