"""Choose how a question is put: by the preset of a harness or a model, or by a template of one's own.

A preset that has no wording for a data set gives way to another one, which is named. It knows no model and no image.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict

from jobs.benchmarks.benchmark import BadRow, Item
from jobs.benchmarks.families import ARIA, EMU3, LLAMA
from jobs.benchmarks.lmms import LMMS, LMMS_REASON_FIRST, LMMS_SOLUTION
from jobs.benchmarks.table import BENCHMARKS
from jobs.benchmarks.texts import with_options
from jobs.benchmarks.vlmevalkit import VLMEVALKIT
from jobs.benchmarks.wording import Asked, Wording

_WORDINGS: Mapping[str, Mapping[str, Asked]] = {
    "lmms": LMMS,
    "lmms_solution": LMMS_SOLUTION,
    "lmms_reason_first": LMMS_REASON_FIRST,
    "vlmevalkit": VLMEVALKIT,
    "aria": ARIA,
    "llama": LLAMA,
    "emu3": EMU3,
}
PRESETS = tuple(_WORDINGS)
# In this order another preset's wording is taken where one has none; lmms has all.
_INSTEAD = ("vlmevalkit", "lmms")
# The preset of each family's published numbers.
PRESET_OF_FAMILY: Mapping[str, str] = {"aria": "aria", "mllama": "llama", "emu3": "emu3"}

_FIELD = re.compile(r"\{([^{}]*)\}")


def preset_of(preset: str, benchmark: str) -> str:
    """Return the preset whose wording a benchmark really has: the one given, or the one that stands in for it.

    Raises:
        ValueError: There is no such preset, no such benchmark, or no wording for it.
    """
    if preset not in _WORDINGS:
        raise ValueError(f"found preset {preset!r}, expected one of {', '.join(PRESETS)}")
    if benchmark not in BENCHMARKS:
        raise ValueError(f"found benchmark {benchmark!r}, expected one of {', '.join(BENCHMARKS)}")
    instead = ("lmms",) if preset.startswith("lmms") else _INSTEAD
    asked_as = BENCHMARKS[benchmark].asked_as
    chosen: str | None = next((one for one in (preset, *instead) if asked_as in _WORDINGS[one]), None)
    if chosen is None:
        looked_at = " and ".join(dict.fromkeys((preset, *instead)))
        raise ValueError(f"{benchmark}: found no wording for {asked_as!r} in {looked_at}; add it to one of them")
    return chosen


def wording(preset: str, benchmark: str, item: Item) -> Wording:
    """Return how a question is put.

    Raises:
        ValueError: There is no such preset, or no such benchmark.
    """
    used = preset_of(preset, benchmark)
    known = BENCHMARKS[benchmark]
    asked = _WORDINGS[used][known.asked_as]
    has_marks = known.video is not None or len(known.images) > 1
    return Wording(asked.text(item), asked.max_new_tokens, asked.marker, asked.images, has_marks)


def images_wanted(preset: str, benchmark: str) -> tuple[str, ...]:
    """Return the names of the image settings with which a benchmark's pictures are looked at under a preset.

    Raises:
        ValueError: There is no such preset, or no such benchmark.
    """
    asked = _WORDINGS[preset_of(preset, benchmark)][BENCHMARKS[benchmark].asked_as]
    return () if asked.images is None else tuple(name for name, one in asdict(asked.images).items() if one is not None)


def presets_for(family: str) -> tuple[str, ...]:
    """Return a family's own preset, if it has one, then those of the harnesses, which any model can be asked in."""
    owned = PRESET_OF_FAMILY.values()
    own = [PRESET_OF_FAMILY[family]] if family in PRESET_OF_FAMILY else []
    return (*own, *(preset for preset in PRESETS if preset not in owned))


def fill(template: str, item: Item) -> str:
    """Put a question into a template of one's own.

    `{question}`, `{context}`, `{options}` (lines such as `A. text`) and the item's facts by their names are filled in;
    a list's members are joined by `, `. Nothing else in braces is looked up.

    Raises:
        BadRow: The template names something that this question does not have.
    """
    options = with_options("", item.choices).removeprefix("\n")
    known = {**item.facts, "question": item.question, "context": item.context, "options": options}

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1])
        if found is None:
            there = ", ".join(name for name, one in known.items() if one is not None)
            raise BadRow(f"found {{{match[1]}}} in the template, expected one of {there}")
        return ", ".join(map(str, found)) if isinstance(found, list | tuple) else str(found)

    return _FIELD.sub(value, template)
