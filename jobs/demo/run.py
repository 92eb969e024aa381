"""Run the demo: write the shards, run every piece as `triptych run` does, and write the page that links them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from jobs.demo.data import NUM_CAPTIONS, NUM_QUESTIONS, write_caption_shards, write_photographs, write_question_shards
from jobs.demo.drawn_pictures import DrawnPictures, read_drawn_pictures
from jobs.demo.pieces import BENCHMARK, FAMILIES, PIECES, TOYS, settings_of
from jobs.demo.prompts import NUM_PROMPTS, write_prompts
from jobs.progress import ProgressStyle
from jobs.report.job import PICTURE_LABELS, TEXT_LABELS
from jobs.report.page import render
from jobs.start import Outcome, run_and_report

DRAWN = "synthesize"


@dataclass(frozen=True)
class Demo:
    """The finished runs by name, what the rule says of the drawn pictures, and the page that links them all."""

    outcomes: Mapping[str, Outcome]
    drawings: DrawnPictures
    index: Path


def run_demo(folder: Path, *, is_quick: bool, style: ProgressStyle = "auto", metrics_port: int | None = None) -> Demo:
    """Write the shards and run every piece from the start, each in a subfolder of its own.

    Earlier results there are replaced: the package, its checkpoints or the number of rows may have changed.

    Args:
        folder: Where shards and results go.
        is_quick: Take about fifty rows of each.
        style: See `jobs.progress.shown_progress`.
        metrics_port: See there.
    """
    shards = folder / "shards"
    write_caption_shards(shards / "caption", NUM_CAPTIONS)
    write_question_shards(shards / "vqa", NUM_QUESTIONS)
    write_prompts(shards / "prompts", NUM_PROMPTS)
    write_photographs(shards / "photographs")
    with ExitStack() as stack:
        checkpoints = {family: stack.enter_context(resources.as_file(_checkpoint(family))) for family in FAMILIES}
        runs = {name: settings_of(folder, name, checkpoints, is_quick=is_quick) for name in PIECES}
        outcomes = {name: run_and_report(settings, name, style, metrics_port) for name, settings in runs.items()}
    drawings = read_drawn_pictures(runs[DRAWN].write.uri)
    index = folder / "index.html"
    page = render(
        "index.html",
        pages=[_card(name, outcome) for name, outcome in outcomes.items()],
        toy=TOYS,
        benchmark=_benchmark(outcomes),
        drawn=_drawn(drawings),
    )
    index.write_text(page, encoding="utf-8")
    return Demo(outcomes, drawings, index)


def _checkpoint(family: str) -> Traversable:
    return resources.files("jobs.demo") / "checkpoints" / family


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
        "good": (TEXT_LABELS if "pictures" not in numbers else PICTURE_LABELS).good,
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


def _drawn(drawings: DrawnPictures) -> dict[str, Any]:
    """Return what the index shows of the drawn pictures."""
    return {
        "name": DRAWN,
        "judge": FAMILIES[PIECES[DRAWN].judge or ""],
        "drawings": drawings.pictures,
        "scores": drawings.scores,
        "kept": {shows: drawings.num_kept(shows_named_shapes=shows) for shows in (True, False)},
    }
