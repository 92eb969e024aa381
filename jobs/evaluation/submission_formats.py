"""How each benchmark's server wants its answers: under which ids, in which words, in which kind of file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from jobs.report.results import ReportError
from jobs.scoring.rules.vqa import normalize_m4c

Id: TypeAlias = int | str


class SubmissionError(ReportError):
    """A server would not take a file, or answers for it are missing."""


@dataclass(frozen=True)
class Format:
    """The file that a server takes.

    Attributes:
        datasets: The beginnings of its data sets' names; the first format with one that fits is taken.
        id_name: The name of a row's id, in the file and in the data set.
        id_type: Whole numbers or texts; texts where ids are the names of a JSON object.
        answer_name: The name of an answer.
        shape: `list`: a JSON list of objects with id and answer, nothing else. `mapping`: a JSON object, answers by id.
            `problems`: a JSON object, by id MathVista's whole problem with its answer. `workbook`: an Excel table,
            MMBench's of all rotations.
        other_names: What an entry of a `problems` or a `workbook` file must have beside id and answer.
        normalisation: What is done to answers before they are written, for people; empty for nothing.
        normalise: The function that does it.
    """

    datasets: tuple[str, ...]
    id_name: str
    id_type: type[int] | type[str]
    answer_name: str
    shape: Literal["list", "mapping", "problems", "workbook"]
    other_names: tuple[str, ...] = ()
    normalisation: str = ""
    normalise: Callable[[str], str] = str


@dataclass(frozen=True)
class Entry:
    """One answer to hand in.

    Attributes:
        id: The row's id, as the server knows it.
        answer: The answer, as the server wants it.
        others: What else the file has for this row, by name.
    """

    id: Id
    answer: str
    others: Mapping[str, Any] = field(default_factory=dict)


def _as_llava(text: str) -> str:
    """Return what LLaVA c121f04 submits for GQA (convert_gqa_for_eval.py)."""
    return text.rstrip(".").lower()


def _one_line(text: str) -> str:
    """Return a caption without line breaks: the official tokeniser would start another caption at each."""
    return " ".join(text.splitlines())


# What MathVista 53d5258 writes in evaluation/extract_answer.py, and reads in calculate_score.py.
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
    for file_format in FORMATS:
        if dataset.startswith(file_format.datasets):
            return file_format
    known = ", ".join(name for file_format in FORMATS for name in file_format.datasets)
    raise SubmissionError(f"found data set {dataset!r}, expected one with a known submission file: {known}")


def as_id(value: object, file_format: Format) -> Id:
    """Convert an id from a data set or a list of ids to the server's type.

    Raises:
        ValueError: It is no whole number where the server wants one.
    """
    return file_format.id_type(str(value))
