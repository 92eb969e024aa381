"""What the demo runs: the shards, job and toy of each piece, and what the pages say of it. Nothing is run here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.config import RunSettings
from jobs.demo.prompts import SIDE
from pipeline import check_settings

NUM_QUICK = 50
BENCHMARK = "easy-vqa"

# The folder of a family's toy checkpoint, and what people call the family.
FAMILIES = {"aria": "Aria", "mllama": "Mllama (Llama 3.2 Vision)", "emu3": "Emu3"}
TOYS = (
    "The checkpoints behind these pages are toys of one to three million parameters each, trained in minutes on two "
    "CPU cores. They know coloured shapes on a plain ground and nothing else."
)
NONSENSE = (
    "What stands under these photographs is nonsense, as expected; they are here to show that real files of real "
    "sizes go all the way."
)
CHECKED = (
    "Another toy, a Mllama, checks every picture: it is asked whether each named shape is there, and a picture with "
    "two yeses is kept. It cannot tell how shapes lie or whether there is a third, so it is not asked. A rule measures "
    "that, on the page that links here."
)

# More than enough for all questions and answers of the toys.
ANSWERS: Mapping[str, Any] = {"slots": 64, "max_length": 256, "sampling": {"max_new_tokens": 24}}
# The toy Emu3 draws best this way (its card has the numbers); with guidance a picture takes two slots.
DRAWS: Mapping[str, Any] = {"slots": 128, "max_length": 256, "sampling": {"temperature": 0.5, "top_k": 64}}


@dataclass(frozen=True)
class Piece:
    """One of the demo's runs.

    Attributes:
        shards: The folder of its input below `shards`.
        family: Whose toy answers, a key of FAMILIES.
        job: The run's settings under `job`.
        about: What the index says of it.
        note: What its own page says, before a sentence about the toy.
        generate: The run's settings under `generate`.
        judge: Whose toy checks what was drawn; None for a job that draws nothing.
        questions: What the judge is asked about a picture.
    """

    shards: str
    family: str
    job: Mapping[str, Any]
    about: str
    note: str = ""
    generate: Mapping[str, Any] = field(default_factory=lambda: ANSWERS)
    judge: str | None = None
    questions: tuple[Mapping[str, str], ...] = ()


VQA = Piece(
    shards="vqa",
    family="aria",
    job={"kind": "vqa", "benchmark": BENCHMARK, "group_by": "answer_type"},
    about="Questions of the easy-VQA test split as Parquet shards, answered and scored.",
)
PIECES: Mapping[str, Piece] = {
    "caption": Piece(
        shards="caption",
        family="aria",
        job={"kind": "caption", "prompt": "Describe this image.", "reference": "gold"},
        about="Images of the easy-VQA test split as WebDataset tars, each described in a sentence; right or wrong is "
        "marked where the benchmark tells both colour and shape.",
    ),
    "vqa": VQA,
    "vqa_mllama": replace(
        VQA, family="mllama", about="The same questions from the same shards, answered by the other family."
    ),
    "synthesize": Piece(
        shards="prompts",
        family="emu3",
        # The size that the toy was trained on. It knows no words of quality, and as negative prompt the empty text.
        job={"kind": "synthesize", "area": SIDE**2, "guidance_scale": 1.2, "quality": "", "negative_prompt": ""},
        about="Descriptions of two shapes, drawn with guidance. Another family's toy checks whether both shapes are "
        "there; a rule measures the pictures too, as shown below.",
        note=CHECKED,
        generate=DRAWS,
        judge="mllama",
        # In the words that the toy was trained on (training/questions.py).
        questions=({"ask": "is there a {first}?"}, {"ask": "is there a {second}?"}),
    ),
    "photographs": Piece(
        shards="photographs",
        family="aria",
        job={"kind": "caption", "prompt": "Describe this image."},
        about="Real photographs as a folder of files. A toy cannot know what they show.",
        note=NONSENSE,
    ),
}


def settings_of(folder: Path, name: str, checkpoints: Mapping[str, Path], *, is_quick: bool) -> RunSettings:
    """Return the settings of a piece's run.

    Args:
        folder: Where shards and results go.
        name: A key of PIECES.
        checkpoints: The toys' folders by family.
        is_quick: Take its first few rows.
    """
    piece = PIECES[name]
    values = {
        "read": {"uri": str(folder / "shards" / piece.shards), "limit": NUM_QUICK if is_quick else None},
        "model": _model(checkpoints[piece.family]),
        "generate": piece.generate,
        "write": {"uri": str(folder / name), "on_existing": "replace"},
        "job": {**piece.job, **_check(piece, checkpoints)},
        "note": _note(piece),
    }
    return check_settings(RunSettings, values, f"demo {name}")


def _model(checkpoint: Path) -> Mapping[str, Any]:
    # The toys are so small that a GPU would only wait for the CPU.
    return {"path": str(checkpoint), "device": "cpu"}


def _check(piece: Piece, checkpoints: Mapping[str, Path]) -> Mapping[str, Any]:
    if piece.judge is None:
        return {}
    return {"check": {"model": _model(checkpoints[piece.judge]), "generate": ANSWERS, "questions": piece.questions}}


def _note(piece: Piece) -> str:
    toy = (
        f"The checkpoint behind this page is a toy {FAMILIES[piece.family]} of a few million parameters at most, "
        "trained in minutes on two CPU cores. It knows coloured shapes on a plain ground and nothing else. The same "
        f"way runs real weights: triptych run {piece.job['kind']}_{piece.family} "
        "model.path=/path/to/weights read.uri=… write.uri=…"
    )
    return f"{piece.note} {toy}".strip()
