"""Questions in words only: MMLU, ARC-Challenge, MATH and HumanEval.

Each function turns a row, by the data set's own column names, into a question. It knows no model, and runs no code.
The fact `continuations` is what may follow the question, for rules that ask which of it a model finds likeliest; no
blank joins it, as in lm-evaluation-harness under a chat template.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from jobs.benchmarks.benchmark import Benchmark, Item, Row
from jobs.benchmarks.cells import bad, cells_of, decoded, fields, is_absent, letter, text, text_or_none, texts, whole
from jobs.scoring.rules.math import extract_boxed

# As many examples as published MMLU numbers have before a question.
MMLU_EXAMPLES = 5


def mmlu(row: Row) -> Item:
    """A question of a subject's examination after the five of its `dev` split, which the column `examples` holds."""
    examples = decoded(row.get("examples"), "examples", "a list of questions")
    if not isinstance(examples, list | tuple) or len(examples) != MMLU_EXAMPLES:
        raise bad("examples", row.get("examples"), f"a list of {MMLU_EXAMPLES} questions of the same subject")
    return _mmlu(row, [_solved(example) for example in examples])


def mmlu_without_examples(row: Row) -> Item:
    """The same question, asked alone."""
    return _mmlu(row, [])


def _mmlu(row: Row, examples: Sequence[str]) -> Item:
    choices = texts(row, "choices")
    subject = text(row, "subject")
    about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."
    return Item(
        question=text(row, "question").strip(),
        answers=(letter(whole(row, "answer"), choices, "answer"),),
        choices=choices,
        context="\n\n".join([about, *examples]),
        groups=(("subject", subject),),
        facts={"subject": subject, "examples": len(examples), "continuations": list(ascii_uppercase[: len(choices)])},
    )


def _solved(example: Any) -> str:
    """Return a question of the same subject with its answer, as it stands before the one that is asked."""
    given = fields({"examples": example}, "examples")
    choices = texts(given, "choices")
    right = letter(whole(given, "answer"), choices, "examples")
    return f"{with_options(text(given, 'question').strip(), choices)}\nAnswer: {right}"


def with_options(question: str, choices: Sequence[str]) -> str:
    """Return a question with its options under it, each after its letter; an option without a text is left out."""
    there = [(mark, option) for mark, option in zip(ascii_uppercase, choices, strict=False) if option]
    return "\n".join([question, *(f"{mark}. {option}" for mark, option in there)])


def examples_by_subject(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """Gather the first five rows of each subject of MMLU's `dev` split: what the column `examples` of a row holds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        these = found.setdefault(text(row, "subject"), [])
        if len(these) < MMLU_EXAMPLES:
            choices, answer = list(texts(row, "choices")), whole(row, "answer")
            these.append({"question": text(row, "question"), "choices": choices, "answer": answer})
    return found


def arc(row: Row) -> Item:
    """A school question whose answer is a letter; some rows number their options instead."""
    choices, right = _arc(row)
    return Item(
        question=text(row, "question"),
        answers=None if right is None else (letter(right, choices, "answerKey"),),
        choices=choices,
        facts={"id": text(row, "id"), "continuations": list(ascii_uppercase[: len(choices)])},
    )


def arc_continued(row: Row) -> Item:
    """The same question without its options: what is likeliest after it is one of their texts."""
    item = arc(row)
    return replace(item, facts={**item.facts, "continuations": list(item.choices)})


def _arc(row: Row) -> tuple[tuple[str, ...], int | None]:
    options = fields(row, "choices")
    labels, key = texts(options, "label"), text_or_none(row, "answerKey")
    if not key:
        return texts(options, "text"), None
    if key not in labels:
        raise bad("answerKey", key, f"one of {', '.join(labels)}")
    return texts(options, "text"), labels.index(key)


def math(row: Row) -> Item:
    """A problem of a competition; the gold answer is what the worked solution boxes, or a column of its own."""
    answer = text_or_none(row, "answer")
    if answer is None:
        answer = extract_boxed(text(row, "solution"))
    if answer is None:
        raise bad("solution", row.get("solution"), "a solution with its answer in \\boxed{}")
    return Item(
        question=text(row, "problem"),
        answers=(answer,),
        groups=cells_of(row, "type", "subject", "level"),
    )


def humaneval(row: Row) -> Item:
    """The head of a function to complete. Whether what comes back is right, only running its tests could say."""
    facts = {column: row.get(column) for column in ("task_id", "entry_point") if not is_absent(row.get(column))}
    return Item(question=text(row, "prompt"), answers=None, facts=facts)


_MMLU = Benchmark(
    key="mmlu",
    item=mmlu,
    needed=("question", "subject", "choices", "answer", "examples"),
    images=(),
    rule="likelihood/sum",
    other_rules=("mcq/prefetch",),
    asked_as="mmlu",
    has_continuations=True,
    total="subjects",
)
_ARC = Benchmark(
    key="arc_challenge",
    item=arc,
    needed=("question", "choices"),
    used=("answerKey",),
    key_column="id",
    images=(),
    rule="mcq/prefetch",
    asked_as="arc_challenge",
    has_continuations=True,
)
DATA_SETS: tuple[Benchmark, ...] = (
    _MMLU,
    replace(
        _MMLU,
        key="mmlu_without_examples",
        item=mmlu_without_examples,
        needed=("question", "subject", "choices", "answer"),
    ),
    _ARC,
    replace(
        _ARC,
        key="arc_challenge_continued",
        item=arc_continued,
        rule="likelihood/per_character",
        asked_as="arc_challenge_continued",
    ),
    Benchmark(
        key="math",
        item=math,
        needed=("problem",),
        used=("solution", "answer", "type", "subject", "level"),
        images=(),
        rule="math/hendrycks",
        asked_as="math",
    ),
    Benchmark(
        key="humaneval",
        item=humaneval,
        needed=("prompt",),
        used=("entry_point",),
        key_column="task_id",
        images=(),
        rule="text/kept",
        asked_as="humaneval",
    ),
)
