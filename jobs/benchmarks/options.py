"""Questions with options: AI2D, ScienceQA, MMMU, MathVista, MMBench, RealWorldQA, MMStar; some of them also without.

Each function turns a row, by the data set's own column names, into a question whose gold answer is a letter. It knows
no images and no wording.
"""

import re
from string import ascii_uppercase
from typing import Any

from jobs.benchmarks.benchmark import Item, Row
from jobs.benchmarks.cells import (
    bad,
    cells,
    cells_of,
    fields,
    gold_text,
    gold_text_or_list,
    is_absent,
    letter,
    number,
    text,
    text_or_none,
    texts,
    texts_or_none,
    whole,
)
from jobs.scoring.options.mmmu_subjects import DISCIPLINE_OF, subject_of

# Rotations of one MMBench question have indices this far apart.
MMBENCH_ROTATION = 1_000_000
_MMBENCH_LETTERS = "ABCDE"
_MATHVISTA_KINDS = ("language", "source", "category", "task", "context", "grade")
# How options stand inside a question's text: on lines of their own, or in MMStar's list.
_OPTION_LINE = re.compile(r"^([A-Z])\. ?(.+)$", re.MULTILINE)
_OPTION_LIST = re.compile(r"\n?Options: (?=A: )(.*)\Z", re.DOTALL)
_OPTION_MARK = re.compile(r"(?:^|, |\n)([A-Z]): ")


def ai2d(row: Row) -> Item:
    """A question about a diagram; the answer is an option's place from 0, written as text."""
    choices = texts(row, "options")
    place = None if is_absent(row.get("answer")) or row["answer"] == "" else whole(row, "answer")
    return Item(
        question=text(row, "question"),
        answers=None if place is None else (letter(place, choices, "answer"),),
        choices=choices,
    )


def scienceqa(row: Row) -> Item:
    """A school question, with or without a picture and a hint; the answer is an option's place from 0."""
    choices = texts(row, "choices")
    place = None if is_absent(row.get("answer")) else whole(row, "answer")
    grade = text_or_none(row, "grade")
    halves = (("grades", _grades(grade)),) if grade else ()
    return Item(
        question=text(row, "question"),
        answers=None if place is None else (letter(place, choices, "answer"),),
        choices=choices,
        context=text_or_none(row, "hint") or "",
        groups=(*cells_of(row, "subject", "topic", "category", "grade"), *halves),
    )


def _grades(grade: str) -> str:
    """Return the half of school that ScienceQA's authors report; grades are called `grade7`."""
    year = grade.removeprefix("grade").strip()
    if not year.isdecimal():
        raise bad("grade", grade, "a grade such as `grade7`")
    return "1-6" if int(year) <= 6 else "7-12"


def mmmu(row: Row) -> Item:
    """A college question, with options or open; options and several gold answers are texts that hold lists.

    The test split has `?` for an answer.
    """
    name = text(row, "id")
    subject = subject_of(name)
    if subject not in DISCIPLINE_OF:
        raise bad("id", name, "an id such as `validation_Accounting_1` with one of MMMU's thirty subjects")
    kind = text(row, "question_type")
    if kind not in ("multiple-choice", "open"):
        raise bad("question_type", kind, "`multiple-choice` or `open`")
    groups = [("discipline", DISCIPLINE_OF[subject]), ("subject", subject), ("question_type", kind)]
    return Item(
        question=text(row, "question"),
        answers=None if row.get("answer") == "?" else gold_text_or_list(row, "answer"),
        choices=texts(row, "options") if kind == "multiple-choice" else (),
        groups=(*groups, *cells_of(row, "topic_difficulty")),
        facts={"id": name, "question_type": kind},
    )


def mathvista(row: Row) -> Item:
    """A question of mathematics about a picture; an option's gold answer is its text, as the official rule compares.

    The column `query` holds the official prompt.
    """
    described = fields(row, "metadata")
    question_type, answer_type = text(row, "question_type"), text(row, "answer_type")
    groups = [("question_type", question_type), ("answer_type", answer_type)]
    groups += cells_of(described, *_MATHVISTA_KINDS)
    return Item(
        question=text(row, "question"),
        answers=gold_text(row, "answer"),
        choices=texts_or_none(row, "choices") or (),
        groups=(*groups, *cells("skills", texts_or_none(described, "skills") or ())),
        facts={
            "pid": text(row, "pid"),
            "query": text(row, "query"),
            "unit": text_or_none(row, "unit") or "",
            "question_type": question_type,
            "answer_type": answer_type,
            "precision": None if is_absent(row.get("precision")) else int(number(row, "precision")),
        },
    )


def mmbench(row: Row) -> Item:
    """One rotation of a question; in version 1.0 a missing hint or option is the text "nan", in 1.1 an empty cell.

    An option that is missing between others keeps its letter: its text is empty.
    """
    index = whole(row, "index")
    options = [_mmbench_text(row, option) for option in _MMBENCH_LETTERS]
    last = max((place for place, option in enumerate(options) if option is not None), default=-1)
    if last < 0:
        raise bad("A", row.get("A"), "an option's text")
    answer = _mmbench_text(row, "answer")
    l2 = "L2-category" if _mmbench_text(row, "L2-category") is not None else "l2-category"
    named = {"category": _mmbench_text(row, "category"), "l2-category": _mmbench_text(row, l2)}
    return Item(
        question=text(row, "question"),
        answers=None if answer is None else (answer,),
        choices=tuple(option or "" for option in options[: last + 1]),
        context=_mmbench_text(row, "hint") or "",
        groups=tuple(cell for name, value in named.items() for cell in cells(name, [value])),
        cluster=str(index % MMBENCH_ROTATION),
        facts={"index": index, **named, **{column: _mmbench_text(row, column) for column in ("source", "split")}},
    )


def _mmbench_text(row: Row, column: str) -> str | None:
    found = text_or_none(row, column)
    return None if found is None or found.strip() in ("", "nan") else found


def realworldqa(row: Row) -> Item:
    """A question about a scene; options and an instruction stand in its text, and some questions have no options."""
    question = text(row, "question")
    return Item(
        question=question,
        answers=gold_text(row, "answer"),
        choices=_listed(_OPTION_LINE.findall(question)),
    )


def mmstar(row: Row) -> Item:
    """A question that takes looking at the picture; its options stand in its text."""
    question = text(row, "question")
    listed = _OPTION_LIST.search(question)
    return Item(
        question=question,
        answers=gold_text(row, "answer"),
        choices=_listed(_split(listed[1])) if listed else (),
        groups=cells_of(row, "category", "l2_category"),
        facts={"index": whole(row, "index")},
    )


def stem(item: Item) -> str:
    """Return a question without the options and the instruction that stand in its text, as some harnesses hold it."""
    listed = _OPTION_LIST.search(item.question)
    if listed:
        return item.question[: listed.start()].rstrip()
    first = _OPTION_LINE.search(item.question)
    return item.question[: first.start()].rstrip() if first else item.question


def _split(listed: str) -> list[tuple[str, str]]:
    """Split `A: one, B: two` where the next letter in turn stands; a colon inside an option splits nothing."""
    marks: list[re.Match[str]] = []
    for mark in _OPTION_MARK.finditer(listed):
        if mark[1] == ascii_uppercase[len(marks)]:
            marks.append(mark)
    ends = [*(mark.start() for mark in marks[1:]), len(listed)]
    return [(mark[1], listed[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]


def _listed(options: list[Any]) -> tuple[str, ...]:
    """Return the options found in a text; none unless they are A, B and so on without a gap."""
    is_whole = "".join(mark for mark, _ in options) == ascii_uppercase[: len(options)]
    return tuple(option.strip() for _, option in options) if is_whole and len(options) > 1 else ()
