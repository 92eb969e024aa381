"""Questions in words only: MMLU, with its mean over subjects, ARC-Challenge, MATH and HumanEval. No code is run.

The fact `continuations` is what may follow the question, for rules that ask which of it a model finds likeliest; no
blank joins it, as in lm-evaluation-harness under a chat template.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

import pyarrow as pa

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Aggregation, Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, bad_column, letter
from jobs.benchmarks.totals import first_group
from jobs.scoring.rules.math import extract_boxed

# As many examples as published MMLU numbers have before a question.
MMLU_EXAMPLES = 5


def _mmlu(row: Row) -> Item:
    """Read a question of a subject's examination after the five of its `dev` split, from the column `examples`."""
    expected = f"a list of {MMLU_EXAMPLES} questions of the same subject"
    examples = row.list_of("examples", expected)
    if len(examples) != MMLU_EXAMPLES:
        raise bad_column("examples", row.get("examples"), expected)
    return _mmlu_after(row, [_solved(example) for example in examples])


def _mmlu_alone(row: Row) -> Item:
    """Read the same question, asked alone."""
    return _mmlu_after(row, [])


def _mmlu_after(row: Row, examples: Sequence[str]) -> Item:
    choices = row.texts("choices")
    subject = row.text("subject")
    about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."
    return Item(
        question=row.text("question").strip(),
        answers=(letter(row.integer("answer"), choices, "answer"),),
        choices=choices,
        context="\n\n".join([about, *examples]),
        groups=(("subject", subject),),
        facts={"subject": subject, "examples": len(examples), "continuations": list(ascii_uppercase[: len(choices)])},
    )


def _solved(example: Any) -> str:
    """Return a question of the same subject with its answer, as it stands before the one that is asked."""
    given = Row({"examples": example}).struct("examples")
    solved = Item(given.text("question").strip(), None, choices=given.texts("choices"))
    return f"{solved.with_options()}\nAnswer: {letter(given.integer('answer'), solved.choices, 'examples')}"


def _subjects(rows: pa.Table, rule: str, with_meteor: bool) -> dict[str, Any]:
    """Return the mean over subjects beside that over rows."""
    scores: dict[str, list[float]] = {}
    for row in rows.to_pylist():
        if row["score"] is not None:
            scores.setdefault(first_group(row), []).append(row["score"])
    means = [sum(of_subject) / len(of_subject) for of_subject in scores.values()]
    macro = sum(means) / len(means) if means else None
    return {"metric": "mean over rows (micro)", "metrics": {"mean over subjects (macro)": macro}}


def examples_by_subject(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Gather the first five rows of each subject of MMLU's `dev` split: what the column `examples` of a row holds."""
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in map(Row, rows):
        of_subject = examples.setdefault(row.text("subject"), [])
        if len(of_subject) < MMLU_EXAMPLES:
            choices, answer = list(row.texts("choices")), row.integer("answer")
            of_subject.append({"question": row.text("question"), "choices": choices, "answer": answer})
    return examples


def _arc(row: Row) -> Item:
    """Read a school question whose answer is a letter; some rows number their options instead."""
    options = row.struct("choices")
    labels, choices, key = (
        options.texts("label"),
        options.texts("text"),
        row.text_or_none("answerKey"),
    )
    if key and key not in labels:
        raise bad_column("answerKey", key, f"one of {', '.join(labels)}")
    return Item(
        question=row.text("question"),
        answers=(letter(labels.index(key), choices, "answerKey"),) if key else None,
        choices=choices,
        facts={"id": row.text("id"), "continuations": list(ascii_uppercase[: len(choices)])},
    )


def _arc_continued(row: Row) -> Item:
    """Read the same question without its options: what is likeliest after it is one of their texts."""
    item = _arc(row)
    return replace(item, facts={**item.facts, "continuations": list(item.choices)})


def _math(row: Row) -> Item:
    """Read a problem of a competition; the gold answer is what the worked solution boxes, or a column of its own."""
    answer = row.text_or_none("answer")
    if answer is None:
        answer = extract_boxed(row.text("solution"))
    if answer is None:
        raise bad_column("solution", row.get("solution"), "a solution with its answer in \\boxed{}")
    return Item(
        question=row.text("problem"),
        answers=(answer,),
        groups=row.groups("type", "subject", "level"),
    )


def _humaneval(row: Row) -> Item:
    """Read the head of a function to complete. Whether what comes back is right, only running its tests could say."""
    facts = {column: row.get(column) for column in ("task_id", "entry_point") if not row.is_empty(column)}
    return Item(question=row.text("prompt"), answers=None, facts=facts)


_MMLU = Benchmark(
    key="mmlu",
    to_item=_mmlu,
    needed=("question", "subject", "choices", "answer", "examples"),
    images=(),
    rule="likelihood/sum",
    other_rules=("mcq/prefetch",),
    prompts={"lmms": PromptTemplate("{context}\n\n{question_with_options}\nAnswer:", 16)},
    aggregation=Aggregation(_subjects),
    has_continuations=True,
)
_ARC = Benchmark(
    key="arc_challenge",
    to_item=_arc,
    needed=("question", "choices"),
    used=("answerKey",),
    key_column="id",
    images=(),
    rule="mcq/prefetch",
    prompts={
        "lmms": PromptTemplate("Question: {question_with_options}\nAnswer:", 16),
        "llama": templates.transformed(
            templates.stripped,
            PromptTemplate(
                "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n"
                "Question: {question_with_options}\nYour response should end with "
                '"The best answer is [the_answer_letter]" where the [the_answer_letter] is one of A, B, C or D.',
                100,
                marker="The best answer is",
            ),
        ),
    },
    has_continuations=True,
)
DATA_SETS: tuple[Benchmark, ...] = (
    _MMLU,
    replace(
        _MMLU,
        key="mmlu_without_examples",
        to_item=_mmlu_alone,
        needed=("question", "subject", "choices", "answer"),
    ),
    _ARC,
    replace(
        _ARC,
        key="arc_challenge_continued",
        to_item=_arc_continued,
        rule="likelihood/per_character",
        prompts={"lmms": PromptTemplate("Question: {question}\nAnswer:", 16)},
    ),
    Benchmark(
        key="math",
        to_item=_math,
        needed=("problem",),
        used=("solution", "answer", "type", "subject", "level"),
        images=(),
        rule="math/hendrycks",
        prompts={"lmms": PromptTemplate("{question}", 2048)},
    ),
    Benchmark(
        key="humaneval",
        to_item=_humaneval,
        needed=("prompt",),
        used=("entry_point",),
        key_column="task_id",
        images=(),
        rule="text/kept",
        prompts={
            "lmms": PromptTemplate(
                "Write a solution to the following problem and make sure that it passes the tests:\n"
                "```python\n{question}\n```\n",
                1024,
            )
        },
    ),
)
