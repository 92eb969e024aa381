"""Every nasty file of the zoo becomes what its keeper expects, and the table that people read says so."""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.report.page import SETTLED
from pipeline.input.formats.table import FORMATS
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


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A copy with a byte changed, a piece cut out, a piece put in, or its end cut off."""
    place = chance.randrange(len(data))
    piece = data[place : place + chance.choice([1, 100, 512])]
    return chance.choice(
        [
            data[:place] + chance.randbytes(1) + data[place + 1 :],
            data[:place] + data[place + len(piece) :],
            data[:place] + piece + data[place:],
            data[:place],
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_is_rows_or_a_message(seed: int, look: Callable[[Animal], Fate]) -> None:
    chance = random.Random(seed)
    small = [animal for animal in ZOO if 0 < len(animal.data) < 50_000]
    for number, animal in enumerate(chance.choices(small, k=60)):
        fate = look(replace(animal, name=f"{seed}-{number}-{animal.name}", data=damaged(animal.data, chance)))
        assert fate.rows != "no plan" or fate.trouble


def test_the_zoo_is_large_and_every_animal_has_a_name_of_its_own() -> None:
    assert len(ZOO) >= 150
    assert [name for name, count in Counter(animal.name for animal in ZOO).items() if count > 1] == []


def test_the_page_about_inputs_shows_the_zoo_as_it_is(look: Callable[[Animal], Fate]) -> None:
    assert table(ZOO, look) in PAGE.read_text(encoding="utf-8"), "print it anew: python -m tests.zoo"


def test_every_word_for_what_decoding_settles_is_shown_by_an_animal_the_page_and_the_report() -> None:
    words = {name for animal in ZOO for name in animal.noted}
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8").split("## The zoo")[0], re.MULTILINE)
    assert words == set(SETTLED) == set(listed) - FORMATS.keys()
