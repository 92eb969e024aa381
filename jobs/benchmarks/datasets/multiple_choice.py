"""Questions with options: AI2D, ScienceQA, RealWorldQA and MMStar; the latter two hold their options in their text."""

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, bad_column

# How options stand inside a question's text: on lines of their own, or in MMStar's list.
_OPTION_LINE = re.compile(r"^([A-Z])\. ?(.+)$", re.MULTILINE)
_OPTION_LIST = re.compile(r"\n?Options: (?=A: )(.*)\Z", re.DOTALL)
_OPTION_MARK = re.compile(r"(?:^|, |\n)([A-Z]): ")
# lmms-eval takes this instruction out of MMStar's questions.
_YES_OR_NO = " Please answer yes or no."


def _ai2d(row: Row) -> Item:
    """Read a question about a diagram; the answer is an option's place from 0, written as text."""
    choices = row.texts("options")
    return Item(
        question=row.text("question"),
        answers=row.gold_letter("answer", choices, hidden=("",)),
        choices=choices,
    )


def _scienceqa(row: Row) -> Item:
    """Read a school question, with or without a picture and a hint; the answer is an option's place from 0."""
    choices = row.texts("choices")
    grade = row.text_or_none("grade")
    halves = (("grades", _grades(grade)),) if grade else ()
    return Item(
        question=row.text("question"),
        answers=row.gold_letter("answer", choices),
        choices=choices,
        context=row.text_or_none("hint") or "",
        groups=(*row.groups("subject", "topic", "category", "grade"), *halves),
    )


def _grades(grade: str) -> str:
    """Return the half of school that ScienceQA's authors report; grades are called `grade7`."""
    year = grade.removeprefix("grade").strip()
    if not year.isdecimal():
        raise bad_column("grade", grade, "a grade such as `grade7`")
    return "1-6" if int(year) <= 6 else "7-12"


def _realworldqa(row: Row) -> Item:
    """Read a question about a scene; options and an instruction stand in its text, and some have no options."""
    question = row.text("question")
    return Item(question, row.gold_answer("answer"), choices=_lettered(_OPTION_LINE.findall(question)))


def _mmstar(row: Row) -> Item:
    """Read a question that takes looking at the picture; its options stand in its text."""
    question = row.text("question")
    listed = _OPTION_LIST.search(question)
    return Item(
        question=question,
        answers=row.gold_answer("answer"),
        choices=_lettered(_split(listed[1])) if listed else (),
        groups=row.groups("category", "l2_category"),
        facts={"index": row.integer("index")},
    )


def _split(listed: str) -> list[tuple[str, str]]:
    """Split `A: one, B: two` where the next letter in turn stands; a colon inside an option splits nothing."""
    marks: list[re.Match[str]] = []
    for mark in _OPTION_MARK.finditer(listed):
        if mark[1] == ascii_uppercase[len(marks)]:
            marks.append(mark)
    ends = [*(mark.start() for mark in marks[1:]), len(listed)]
    return [(mark[1], listed[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]


def _lettered(options: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the options found in a text; none unless they are A, B and so on without a gap."""
    is_whole = "".join(letter for letter, _ in options) == ascii_uppercase[: len(options)]
    return tuple(option.strip() for _, option in options) if is_whole and len(options) > 1 else ()


def stem(item: Item) -> str:
    """Return a question without the options and the instruction that stand in its text."""
    first = _OPTION_LIST.search(item.question) or _OPTION_LINE.search(item.question)
    return item.question[: first.start()].rstrip() if first else item.question


def _options_apart(item: Item) -> Item:
    """Take the options out of the question's text, as VLMEvalKit's tables have them."""
    return replace(item, question=stem(item)) if item.choices else item


def _lmms_scienceqa(item: Item) -> str:
    context = f"Context: {item.context}\n" if item.context else ""
    return f"{context}{item.with_options()}\n{templates.LETTER}"


def _lmms_mmstar(item: Item) -> str:
    return f"{item.question.strip().replace(_YES_OR_NO, '')}\n{templates.LETTER.rstrip('.')}"


_AI2D = Benchmark(
    key="ai2d",
    to_item=_ai2d,
    needed=("question", "options", "answer"),
    rule="ai2d/letter",
    other_rules=("mcq/prefetch", "mcq/ranked"),
    prompts={
        "lmms": PromptTemplate(templates.OPTIONS_LETTER, 16),
        "vlmevalkit": templates.VLMEVALKIT_CHOOSE,
        "aria": templates.aria(64),
        "llama": PromptTemplate(
            "Look at the scientific diagram carefully and answer the following question: {question_with_options}\n "
            "Think step by step and finally respond to the question with only the correct option number as "
            '"FINAL ANSWER". Let\'s think step by step.',
            400,
            marker=templates.FINAL_ANSWER,
        ),
    },
)
_SCIENCEQA = Benchmark(
    key="scienceqa_img",
    to_item=_scienceqa,
    needed=("question", "choices", "answer"),
    used=("hint", "grade", "subject", "topic", "category"),
    rule="scienceqa/lmms",
    other_rules=("scienceqa/llava", "mcq/prefetch"),
    prompts={
        "lmms": PromptTemplate(_lmms_scienceqa, 16),
        "vlmevalkit": templates.VLMEVALKIT_CHOOSE,
        "aria": templates.aria(64),
    },
)
DATA_SETS: tuple[Benchmark, ...] = (
    _AI2D,
    replace(_AI2D, key="ai2d_no_mask"),
    _SCIENCEQA,
    replace(_SCIENCEQA, key="scienceqa_full", may_lack_images=True),
    Benchmark(
        key="realworldqa",
        to_item=_realworldqa,
        needed=("question", "answer"),
        rule="realworldqa/ranked",
        prompts={
            "lmms": templates.transformed(templates.stripped, PromptTemplate("{question}", 16)),
            "vlmevalkit": templates.transformed(_options_apart, templates.VLMEVALKIT_CHOOSE),
            "aria": templates.transformed(_options_apart, templates.aria(64)),
        },
    ),
    Benchmark(
        key="mmstar",
        to_item=_mmstar,
        needed=("question", "answer"),
        used=("category", "l2_category"),
        key_column="index",
        rule="mmstar/official",
        other_rules=("mcq/prefetch", "mcq/ranked"),
        prompts={
            "lmms": PromptTemplate(_lmms_mmstar, templates.LMMS_UNLIMITED),
            "vlmevalkit": templates.transformed(_options_apart, templates.VLMEVALKIT_CHOOSE),
            "aria": templates.transformed(_options_apart, templates.aria(512)),
        },
    ),
)
