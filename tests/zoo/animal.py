"""What a nasty file is, and what becomes of it on its way from the plan to the model's door."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.caption import CaptionSettings
from jobs.vqa import VqaSettings
from models import load_processor
from models.images import decode_image, silent_conversions
from models.types import Processor, Sampling
from pipeline.input.formats.chats import MESSAGES
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input
from pipeline.rows import model_inputs
from pipeline.steps.preprocess import Preprocess
from pipeline.storage.store import StorageError

CHECKPOINT = Path(__file__).parents[2] / "jobs/demo/checkpoints/aria"
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Animal:
    """One nasty file.

    Attributes:
        name: What it is called.
        odd: What is odd about it.
        data: Its bytes.
        expected: What becomes of its rows: `answer`, `2 answers, 1 decode/BadImage`; `no plan` where a run stops first.
        noted: The oddities of its first row's images that are counted; of a row that fails none is.
        trouble: A piece of the message that stops the plan or, where there are rows, of the warning.
        corner: The colour of the first image's top left corner once it is upright RGB.
        images: How many images the first row has, where it is not one.
        read: Settings of the input.
        beside: Other files in its folder.
        text: What the first row's prompt holds, character by character.
        uri: What is read, where it is not the file itself: `.` is its folder.
        key: The first row's key.
    """

    name: str
    odd: str
    data: bytes
    expected: str = "answer"
    noted: tuple[str, ...] = ()
    trouble: str | None = None
    corner: Color | None = None
    images: int | None = None
    read: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    text: str | None = None
    uri: str = ""
    key: str | None = None


@dataclass(frozen=True)
class Fate:
    """What became of an animal; `prompts` are of the rows that are answered."""

    rows: str
    noted: tuple[str, ...] = ()
    trouble: str | None = None
    corner: Color | None = None
    images: int = 0
    prompts: tuple[str, ...] = ()
    key: str | None = None


def open_processor() -> Processor:
    """Open a tiny Aria's processor, which needs no torch."""
    return load_processor(str(CHECKPOINT))


def fate_of(animal: Animal, processor: Processor) -> Fate:
    """Send a file through plan, reader and preprocessing, up to where a model would answer."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in {animal.name: animal.data, **animal.beside}.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        read = ReadSettings.model_validate({"uri": f"{folder}/{animal.uri or animal.name}", **animal.read})
        try:
            planned = plan_input(read, 4, reads=("question", "answers", MESSAGES))
        except StorageError as error:
            return Fate("no plan", trouble=str(error).replace(f"{folder}/", ""))
        blocks = [read_unit(unit, read) for unit in planned.units]
        trouble = "; ".join(planned.warnings).replace(f"{folder}/", "") or None
    has_questions = "question" in blocks[0].column_names
    job = VqaSettings(kind="vqa") if has_questions else CaptionSettings(kind="caption", prompt="Describe this image.")
    built = job.build()
    step = Preprocess(processor, built, Sampling())
    if has_questions and "answers" not in blocks[0].column_names:  # to which nobody knows the answers
        blocks = [block.append_column("answers", pa.nulls(len(block), pa.list_(pa.string()))) for block in blocks]
    ready = [step(built.adapt("", block)) for block in blocks]
    errors = [error for block in ready for error in block.column("error").to_pylist()]
    images = blocks[0].column("images")[0].as_py() or []
    return Fate(
        rows=_counted(errors),
        noted=() if errors[0] else tuple(dict.fromkeys(name for image in images for name in silent_conversions(image))),
        trouble=trouble,
        corner=_corner(images[0]) if images and errors[0] is None else None,
        images=len(images),
        key=blocks[0].column("key")[0].as_py(),
        prompts=tuple(given.prompt for block in ready for given in model_inputs(block) if given is not None),
    )


def is_as_expected(animal: Animal, fate: Fate) -> bool:
    """Say whether what became of it is what should."""
    return (
        (fate.rows, fate.noted) == (animal.expected, animal.noted)
        and (animal.trouble or "") in (fate.trouble or "")
        and (animal.trouble is None) == (fate.trouble is None)
        and (animal.corner is None or _is_close(fate.corner, animal.corner))
        and (animal.images is None or animal.images == fate.images)
        and animal.key in (None, fate.key)
        and (animal.text is None or animal.text in fate.prompts[0])
    )


def _counted(errors: list[Any]) -> str:
    kinds = [error and f"{error['stage']}/{error['type']}" for error in errors]
    counts = Counter("answer" if kind is None else kind for kind in kinds)
    if len(kinds) == 1:
        return str(next(iter(counts)))
    return ", ".join(
        f"{count} {kind}{'s' if kind == 'answer' and count > 1 else ''}" for kind, count in sorted(counts.items())
    )


def _corner(image: bytes) -> Color:
    red, green, blue = np.asarray(decode_image(image))[0, 0].tolist()
    return red, green, blue


def _is_close(found: Color | None, color: Color) -> bool:
    return found is not None and max(abs(one - other) for one, other in zip(found, color, strict=True)) <= 40
