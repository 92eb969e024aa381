"""The demo: captions, answers and photographs, each a run like any other, on data and checkpoints of the package.

It writes shards and settings, then goes the common way; nothing of the pipeline is done here.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from jobs.config import RunSettings
from jobs.demo.data import NUM_CAPTIONS, NUM_QUESTIONS, write_caption_shards, write_photographs, write_question_shards
from jobs.report.page import render
from jobs.start import Outcome, run_and_report
from pipeline.settings import check_settings

NUM_QUICK = 50
BENCHMARK = "easy-vqa"

# The folder of a family's toy checkpoint, and what people call the family.
FAMILIES = {"aria": "Aria", "mllama": "Mllama (Llama 3.2 Vision)"}
TOYS = (
    "The checkpoints behind these pages are toys of about a million parameters each, trained in minutes on two CPU "
    "cores. They know coloured shapes on a plain ground and nothing else."
)
NONSENSE = (
    "What stands under these photographs is nonsense, as expected; they are here to show that real files of real "
    "sizes go all the way."
)


@dataclass(frozen=True)
class Piece:
    """One of the demo's runs.

    Attributes:
        shards: The folder of its input below `shards`.
        family: Whose toy answers, a key of FAMILIES.
        config: The file in configs/ that does the same with real weights.
        job: The run's settings under `job`.
        about: What the index says of it.
        note: What its own page says besides what the checkpoint is.
    """

    shards: str
    family: str
    config: str
    job: Mapping[str, Any]
    about: str
    note: str = ""


VQA = {"kind": "vqa", "benchmark": BENCHMARK, "group_by": "answer_type"}
PIECES: Mapping[str, Piece] = {
    "caption": Piece(
        shards="caption",
        family="aria",
        config="caption_aria",
        job={"kind": "caption", "prompt": "Describe this image.", "reference": "gold"},
        about="Images of the easy-VQA test split as WebDataset tars, each described in a sentence; right or wrong is "
        "marked where the benchmark tells both colour and shape.",
    ),
    "vqa": Piece(
        shards="vqa",
        family="aria",
        config="vqa_aria",
        job=VQA,
        about="Questions of the easy-VQA test split as Parquet shards, answered and scored.",
    ),
    "vqa_mllama": Piece(
        shards="vqa",
        family="mllama",
        config="vqa_mllama",
        job=VQA,
        about="The same questions from the same shards, answered by the other family.",
    ),
    "photographs": Piece(
        shards="photographs",
        family="aria",
        config="caption_aria",
        job={"kind": "caption", "prompt": "Describe this image."},
        about="Real photographs as a folder of files. A toy cannot know what they show.",
        note=NONSENSE,
    ),
}


@dataclass(frozen=True)
class Demo:
    """The finished runs by name, and the page that links them."""

    outcomes: Mapping[str, Outcome]
    index: Path


def run_demo(folder: Path, *, is_quick: bool) -> Demo:
    """Write the shards and run every job anew, one subfolder each.

    Earlier results there are replaced: the package, its checkpoint or the number of rows may be others by now.

    Args:
        folder: Where shards and results go.
        is_quick: Take about fifty rows of each.
    """
    shards = folder / "shards"
    write_caption_shards(shards / "caption", NUM_CAPTIONS)
    write_question_shards(shards / "vqa", NUM_QUESTIONS)
    write_photographs(shards / "photographs")
    with ExitStack() as stack:
        checkpoints = {family: stack.enter_context(resources.as_file(_checkpoint(family))) for family in FAMILIES}
        limit = NUM_QUICK if is_quick else None
        runs = {name: _settings(folder, name, checkpoints[piece.family], limit) for name, piece in PIECES.items()}
        outcomes = {name: run_and_report(settings) for name, settings in runs.items()}
    index = folder / "index.html"
    pages = [_card(name, outcome) for name, outcome in outcomes.items()]
    index.write_text(render("index.html", pages=pages, toy=TOYS, benchmark=_benchmark(outcomes)), encoding="utf-8")
    return Demo(outcomes, index)


def _checkpoint(family: str) -> Traversable:
    return resources.files("jobs.demo") / "checkpoints" / family


def _settings(folder: Path, name: str, checkpoint: Path, limit: int | None) -> RunSettings:
    piece = PIECES[name]
    values = {
        "read": {"uri": str(folder / "shards" / piece.shards), "limit": limit},
        # The toys are so small that a GPU would only wait for the CPU.
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 64, "max_length": 256, "sampling": {"max_new_tokens": 24}},
        "write": {"uri": str(folder / name), "on_existing": "replace"},
        "job": piece.job,
        "note": _note(piece),
    }
    return check_settings(RunSettings, values, f"demo {name}")


def _note(piece: Piece) -> str:
    toy = (
        f"The checkpoint behind this page is a toy {FAMILIES[piece.family]} of about a million parameters, trained in "
        "minutes on two CPU cores. It knows coloured shapes on a plain ground and nothing else. The same way runs real "
        f"weights: triptych run configs/{piece.config}.yaml model.path=/path/to/weights read.uri=… write.uri=…"
    )
    return f"{piece.note} {toy}".strip()


def _card(name: str, outcome: Outcome) -> dict[str, Any]:
    """Return what the index shows of a run."""
    numbers = outcome.report.numbers
    scores = [score for score in numbers["scores"].values() if score["score"] is not None]
    piece = PIECES[name]
    return {
        "name": name,
        "family": FAMILIES[piece.family],
        "about": piece.about,
        "numbers": numbers,
        "score": scores[0] if scores else None,
    }


def _benchmark(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return the scores of the runs that answered the benchmark, side by side."""
    scores = {
        FAMILIES[PIECES[name].family]: outcome.report.numbers["scores"][BENCHMARK]
        for name, outcome in outcomes.items()
        if BENCHMARK in outcome.report.numbers["scores"]
    }
    groups = sorted({group for score in scores.values() for group in score["by"]})
    rows: list[tuple[str, Sequence[Mapping[str, Any]]]] = [("all questions", list(scores.values()))]
    rows += [(group, [score["by"][group] for score in scores.values()]) for group in groups]
    return {"name": BENCHMARK, "families": list(scores), "rows": rows}
