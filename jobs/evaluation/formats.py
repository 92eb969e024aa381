"""How each benchmark's server wants its answers: under which ids, in which words, in which kind of file.

It knows ids and texts; rows of a run, and where files stand, are not known here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from jobs.report.results import ReportError
from jobs.scoring.rules.vqa import normalize_m4c

Id: TypeAlias = int | str


class SubmissionError(ReportError):
    """A file is not what its server takes, or the answers for it are not there."""


@dataclass(frozen=True)
class Format:
    """What a server takes.

    Attributes:
        datasets: How the names of the data sets begin whose answers it takes.
        id_name: What it calls a row's id; also the name under which the data set has it.
        id_type: Whole numbers or texts.
        answer_name: What it calls an answer.
        shape: `list`: a JSON list of objects with id and answer, nothing else. `mapping`: a JSON object, answers by id.
            `problems`: a JSON object, by id the whole problem with its answer. `workbook`: an Excel table.
        beside: What an entry of a `problems` or a `workbook` file must have beside id and answer.
        normalisation: What is done to answers before they are written, for people; empty for nothing.
        normalise: That.
    """

    datasets: tuple[str, ...]
    id_name: str
    id_type: type[int] | type[str]
    answer_name: str
    shape: Literal["list", "mapping", "problems", "workbook"]
    beside: tuple[str, ...] = ()
    normalisation: str = ""
    normalise: Callable[[str], str] = str


@dataclass(frozen=True)
class Entry:
    """One answer to hand in.

    Attributes:
        id: As the server knows the row.
        answer: In the server's words.
        beside: What else stands in the file for this row, by name.
    """

    id: Id
    answer: str
    beside: Mapping[str, Any] = field(default_factory=dict)


def _as_llava(text: str) -> str:
    """Return what LLaVA c121f04 submits for GQA (convert_gqa_for_eval.py)."""
    return text.rstrip(".").lower()


def _one_line(text: str) -> str:
    """Return a caption without line breaks: the official tokeniser would take each for the start of another caption."""
    return " ".join(text.splitlines())


# What MathVista 53d5258 leaves behind after evaluation/extract_answer.py, and calculate_score.py looks at.
_PROBLEM = ("question_type", "answer_type", "choices", "precision", "metadata", "extraction")

FORMATS = (
    # LLaVA c121f04, convert_vqav2_for_submission.py; lmms-eval 75571cf for TextVQA.
    Format(("vqav2", "textvqa"), "question_id", int, "answer", "list", (), "m4c", normalize_m4c),
    Format(("docvqa", "infovqa"), "questionId", int, "answer", "list"),
    Format(("gqa",), "questionId", str, "prediction", "list", (), "exact/llava_submission", _as_llava),
    Format(("mmmu",), "id", str, "answer", "mapping"),
    Format(("mathvista",), "pid", str, "response", "problems", _PROBLEM),
    Format(("mmbench",), "index", int, "prediction", "workbook", ("question", "A", "B", "C", "D")),
    Format(("longvideobench",), "id", str, "response", "mapping"),
    Format(("coco", "nocaps"), "image_id", int, "caption", "list", (), "line breaks become blanks", _one_line),
)


def format_of(dataset: str) -> Format:
    """Return the format that a data set's server takes.

    Raises:
        SubmissionError: No server is known for it.
    """
    for one in FORMATS:
        if dataset.startswith(one.datasets):
            return one
    known = ", ".join(name for one in FORMATS for name in one.datasets)
    raise SubmissionError(f"found data set {dataset!r}, expected one with a known submission file: {known}")


def as_id(value: object, expected: Format) -> Id:
    """Turn an id, as a data set or somebody's list has it, into the server's type.

    Raises:
        ValueError: It cannot be turned.
    """
    text = str(value)
    return int(text) if expected.id_type is int else text
