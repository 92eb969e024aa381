"""Questions with options: AI2D, ScienceQA, MMMU, MathVista, MMBench, RealWorldQA, MMStar; some of them also without.

Each function turns a row, by the data set's own column names, into a question whose gold answer is a letter. It knows
no images and no wording.
"""

import re
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from jobs.benchmarks.benchmark import Benchmark, Item, Row
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
from jobs.scoring.rules.mmbench import ROTATION
from jobs.scoring.rules.mmmu import DISCIPLINE_OF, subject_of

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
        cluster=str(index % ROTATION),
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


_LETTERS = ("mcq/prefetch", "mcq/ranked")

_AI2D = Benchmark(
    key="ai2d",
    item=ai2d,
    needed=("question", "options", "answer"),
    rule="ai2d/letter",
    other_rules=_LETTERS,
    asked_as="ai2d",
)
_SCIENCEQA = Benchmark(
    key="scienceqa_img",
    item=scienceqa,
    needed=("question", "choices", "answer"),
    used=("hint", "grade", "subject", "topic", "category"),
    rule="scienceqa/lmms",
    other_rules=("scienceqa/llava", "mcq/prefetch"),
    asked_as="scienceqa",
)
_MMMU = Benchmark(
    key="mmmu_val",
    item=mmmu,
    needed=("question", "options", "question_type"),
    used=("answer", "topic_difficulty"),
    key_column="id",
    images=tuple(f"image_{place}" for place in range(1, 8)),
    rule="mmmu/official",
    other_rules=("mmmu/lmms",),
    asked_as="mmmu",
)
_MATHVISTA = Benchmark(
    key="mathvista_testmini",
    item=mathvista,
    needed=("question", "query", "question_type", "answer_type", "choices", "precision"),
    used=("answer", "unit", "metadata"),
    key_column="pid",
    images=("decoded_image",),
    rule="mathvista/official",
    other_rules=("mathvista/rule_extract",),
    asked_as="mathvista",
)
_MMBENCH = Benchmark(
    key="mmbench_en_dev",
    item=mmbench,
    needed=("question", "A", "B"),
    used=("hint", "answer", "C", "D", "E", "category", "L2-category", "l2-category", "source", "split"),
    key_column="index",
    rule="mcq/prefetch",
    other_rules=("mcq/ranked",),
    asked_as="mmbench_en",
    total="circular",
)
# A short cell of version 1.1's image column is the index of the row that holds the picture.
_MMBENCH_V11 = replace(_MMBENCH, key="mmbench_dev_en_v11", join=("index", "image"))
DATA_SETS: tuple[Benchmark, ...] = (
    _AI2D,
    replace(_AI2D, key="ai2d_no_mask"),
    _SCIENCEQA,
    replace(_SCIENCEQA, key="scienceqa_full", may_lack_images=True),
    _MMMU,
    replace(_MMMU, key="mmmu_test", asked_as="mmmu_test"),
    _MATHVISTA,
    replace(_MATHVISTA, key="mathvista_test"),
    _MMBENCH,
    replace(_MMBENCH, key="mmbench_en_test"),
    replace(_MMBENCH, key="mmbench_cn_dev", asked_as="mmbench_cn"),
    replace(_MMBENCH, key="mmbench_cn_test", asked_as="mmbench_cn"),
    _MMBENCH_V11,
    replace(_MMBENCH_V11, key="mmbench_test_en_v11"),
    replace(_MMBENCH_V11, key="mmbench_dev_cn_v11", asked_as="mmbench_cn"),
    replace(_MMBENCH_V11, key="mmbench_test_cn_v11", asked_as="mmbench_cn"),
    Benchmark(
        key="realworldqa",
        item=realworldqa,
        needed=("question", "answer"),
        rule="realworldqa/ranked",
        asked_as="realworldqa",
    ),
    Benchmark(
        key="mmstar",
        item=mmstar,
        needed=("question", "answer"),
        used=("category", "l2_category"),
        key_column="index",
        rule="mmstar/official",
        other_rules=_LETTERS,
        asked_as="mmstar",
    ),
)
