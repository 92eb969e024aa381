"""Choose in whose words a question is put: those of a harness, or those of a model's own published numbers.

A preset without a template for a data set gives way to another one, which is named. It knows no model and no image.
"""

from collections.abc import Mapping
from dataclasses import asdict

from jobs.benchmarks.benchmark import Benchmark, PromptTemplate
from jobs.benchmarks.templates import emu3

PRESETS: Mapping[str, str] = {
    "lmms": "lmms-eval's wording, and lm-evaluation-harness' for questions in words only",
    "lmms_solution": "lmms-eval's second wording of MathVista, which asks for the solution",
    "lmms_reason_first": "lmms-eval's third wording of MathVista, which asks for reasons first",
    "vlmevalkit": "VLMEvalKit's wording",
    "aria": "the wording of Aria's published numbers",
    "llama": "Meta's own wording of Llama 3.2's published numbers",
    "emu3": "the wording of Emu3's published numbers",
}
# In this order another preset's template is taken where one has none; lmms has all.
_FALLBACKS = ("vlmevalkit", "lmms")
# The preset of each family's published numbers.
PRESET_OF_FAMILY: Mapping[str, str] = {"aria": "aria", "mllama": "llama", "emu3": "emu3"}


def find_template(preset: str, benchmark: Benchmark) -> tuple[str, PromptTemplate]:
    """Return the preset whose words a benchmark has under a preset, which may be a fallback, and its template there.

    Raises:
        ValueError: There is no such preset, or no template.
    """
    if preset not in PRESETS:
        raise ValueError(f"found preset {preset!r}, expected one of {', '.join(PRESETS)}")
    fallbacks = ("lmms",) if preset.startswith("lmms") else _FALLBACKS
    candidates: list[str] = list(dict.fromkeys((preset, *fallbacks)))
    for candidate in candidates:
        if template := _own_template(candidate, benchmark):
            return candidate, template
    raise ValueError(f"{benchmark.key}: found no prompt template for {' and '.join(candidates)}; add one of them")


def _own_template(preset: str, benchmark: Benchmark) -> PromptTemplate | None:
    """Return the template of exactly this preset. Emu3's is VLMEvalKit's with the images first.

    A video's frames make no sense without their places among the subtitles, so Emu3 has none there.
    """
    if preset != "emu3":
        return benchmark.prompts.get(preset)
    template = benchmark.prompts.get("vlmevalkit")
    return None if template is None or benchmark.video is not None else emu3(template)


def images_wanted(preset: str, benchmark: Benchmark) -> tuple[str, ...]:
    """Return the names of the image settings that go with a benchmark's template under a preset.

    Raises:
        ValueError: There is no such preset, or no template.
    """
    images = find_template(preset, benchmark)[1].images
    return () if images is None else tuple(name for name, value in asdict(images).items() if value is not None)


def presets_for(family: str) -> tuple[str, ...]:
    """Return a family's own preset, if it has one, then those of the harnesses, which any model can be asked in."""
    owned = PRESET_OF_FAMILY.values()
    own = [PRESET_OF_FAMILY[family]] if family in PRESET_OF_FAMILY else []
    return (*own, *(preset for preset in PRESETS if preset not in owned))
