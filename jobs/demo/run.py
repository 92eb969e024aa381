"""The demo: captions, answers and photographs, each a run like any other, on data and a checkpoint of the package.

It writes shards and settings, then goes the common way; nothing of the pipeline is done here.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jobs.config import RunSettings
from jobs.demo.data import NUM_CAPTIONS, NUM_QUESTIONS, write_caption_shards, write_photographs, write_question_shards
from jobs.report.page import render
from jobs.start import Outcome, run_and_report
from pipeline.settings import check_settings

NUM_QUICK = 50

TOY = (
    "The checkpoint behind this page is a toy of about a million parameters, trained in minutes on two CPU cores. "
    "It knows coloured shapes on a plain ground and nothing else. The same way runs real weights: "
    "triptych run configs/caption_aria.yaml model.path=/path/to/Aria read.uri=… write.uri=…"
)
NONSENSE = (
    "What stands under these photographs is nonsense, as expected; they are here to show that real files of real "
    f"sizes go all the way. {TOY}"
)


RUNS: Mapping[str, Mapping[str, Any]] = {
    "caption": {
        "note": TOY,
        "job": {"kind": "caption", "prompt": "Describe this image.", "reference": "gold"},
    },
    "vqa": {
        "note": TOY,
        "job": {"kind": "vqa", "benchmark": "easy-vqa", "group_by": "answer_type"},
    },
    "photographs": {
        "note": NONSENSE,
        "job": {"kind": "caption", "prompt": "Describe this image."},
    },
}
ABOUT = {
    "caption": "Images of the easy-VQA test split as WebDataset tars, each described in a sentence; right or wrong is "
    "marked where the benchmark tells both colour and shape.",
    "vqa": "Questions of the easy-VQA test split as Parquet shards, answered and scored.",
    "photographs": "Real photographs as a folder of files. A toy cannot know what they show.",
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
        checkpoint = resources.files("jobs.demo") / "checkpoints" / "aria"
        path = stack.enter_context(resources.as_file(checkpoint))
        runs = {name: _settings(folder, name, path, NUM_QUICK if is_quick else None) for name in RUNS}
        outcomes = {name: run_and_report(settings) for name, settings in runs.items()}
    index = folder / "index.html"
    pages = [_card(name, outcome) for name, outcome in outcomes.items()]
    index.write_text(render("index.html", pages=pages, toy=TOY), encoding="utf-8")
    return Demo(outcomes, index)


def _settings(folder: Path, name: str, checkpoint: Path, limit: int | None) -> RunSettings:
    values = {
        "read": {"uri": str(folder / "shards" / name), "limit": limit},
        # The toy is so small that a GPU would only wait for the CPU.
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 64, "max_length": 256, "sampling": {"max_new_tokens": 24}},
        "write": {"uri": str(folder / name), "on_existing": "replace"},
        **RUNS[name],
    }
    return check_settings(RunSettings, values, f"demo {name}")


def _card(name: str, outcome: Outcome) -> dict[str, Any]:
    numbers = outcome.report.numbers
    scores = [score for score in numbers["scores"].values() if score["score"] is not None]
    return {"name": name, "about": ABOUT[name], "numbers": numbers, "score": scores[0] if scores else None}
