"""MMMU: college questions of thirty subjects, with options or open, about one to seven pictures each."""

import re
from dataclasses import replace

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, bad_column
from jobs.scoring.rules.mmmu import DISCIPLINE_OF, subject_of

_AROUND_MARKS = re.compile(r"\s*(<image \d+>)\s*")


def _mmmu(row: Row) -> Item:
    """Read a question; options and several gold answers are texts that hold lists. The test split's answers are `?`."""
    name = row.text("id")
    subject = subject_of(name)
    if subject not in DISCIPLINE_OF:
        raise bad_column("id", name, "an id such as `validation_Accounting_1` with one of MMMU's thirty subjects")
    kind = row.text("question_type")
    if kind not in ("multiple-choice", "open"):
        raise bad_column("question_type", kind, "`multiple-choice` or `open`")
    groups = [("discipline", DISCIPLINE_OF[subject]), ("subject", subject), ("question_type", kind)]
    return Item(
        question=row.text("question"),
        answers=None if row.get("answer") == "?" else row.gold_answer_or_list("answer"),
        choices=row.texts("options") if kind == "multiple-choice" else (),
        groups=(*groups, *row.groups("topic_difficulty")),
        facts={"id": name, "question_type": kind},
    )


def _lmms(item: Item) -> str:
    """Put the pictures where they are mentioned, without white space around, as its messages do."""
    return _AROUND_MARKS.sub(
        r"\1", f"{item.with_options()}\n\n{templates.LETTER if item.choices else templates.SHORT}".strip()
    )


def _llama(item: Item) -> str:
    options = item.options.strip()
    posed = f"{item.question} Options: {options}" if options else item.question
    return (
        "Look at the image carefully and solve the following question step-by-step. "
        f"{templates.IMAGE_MARK.sub('', posed)} Indicate the correct answer at the end."
    )


_MMMU = Benchmark(
    key="mmmu_val",
    to_item=_mmmu,
    needed=("question", "options", "question_type"),
    used=("answer", "topic_difficulty"),
    key_column="id",
    images=tuple(f"image_{place}" for place in range(1, 8)),
    rule="mmmu/official",
    other_rules=("mmmu/lmms",),
    prompts={
        "lmms": PromptTemplate(_lmms, 128),
        "vlmevalkit": templates.VLMEVALKIT_CHOOSE,
        "aria": templates.aria(512),
        "llama": PromptTemplate(_llama, 2048),
    },
)
DATA_SETS: tuple[Benchmark, ...] = (
    _MMMU,
    replace(_MMMU, key="mmmu_test", prompts={**_MMMU.prompts, "lmms": PromptTemplate(_lmms, 512)}),
)
