"""Questions about text in pictures: TextVQA, DocVQA, InfographicVQA, ChartQA and OCRBench, with OCRBench's points."""

from dataclasses import replace
from typing import Any

import pyarrow as pa

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Aggregation, Benchmark, Item, PromptTemplate, question_from
from jobs.benchmarks.row import Row, bad_column, groups_of
from jobs.scoring.rules.text_match import OCRBENCH_GROUPS


def _ocr_tokens(row: Row, column: str) -> list[str]:
    return list(row.texts_or_none(column) or ())


def _capitalized(item: Item) -> Item:
    # Python's `capitalize` makes all other letters small.
    return replace(item, question=item.question.capitalize())


def _chartqa(row: Row) -> Item:
    """Read a question about a chart, by a person or made from its data."""
    return Item(
        question=row.text("question"),
        answers=row.gold_answer("answer"),
        groups=groups_of("type", [row.text("type").removesuffix("_test")]),
    )


def _ocrbench(row: Row) -> Item:
    """Read a question about text in a picture; which data set it is from decides how its answer is compared."""
    kind = row.text("question_type")
    if kind not in OCRBENCH_GROUPS:
        raise bad_column("question_type", kind, f"one of {', '.join(OCRBENCH_GROUPS)}")
    return Item(
        question=row.text("question"),
        answers=row.gold_answer_or_list("answer"),
        groups=(("group", OCRBENCH_GROUPS[kind]), ("question_type", kind)),
        facts={"dataset": row.text("dataset"), "question_type": kind},
    )


def _points(rows: pa.Table, rule: str, with_meteor: bool) -> dict[str, Any]:
    """Return the points beside their share."""
    points = sum(score or 0.0 for score in rows["score"].to_pylist())
    return {"metric": "share of points", "metrics": {"points": points}}


_TEXTVQA = Benchmark(
    key="textvqa_val",
    to_item=question_from(facts={"question_id": Row.integer, "image_id": Row.text, "ocr_tokens": _ocr_tokens}),
    needed=("image_id", "question"),
    used=("answers", "ocr_tokens"),
    key_column="question_id",
    rule="vqa/m4c",
    other_rules=("vqa/always_norm", "vqa/vlmevalkit"),
    prompts={
        "lmms": templates.transformed(_capitalized, PromptTemplate(templates.QUESTION_SHORT, templates.LMMS_UNLIMITED)),
        "vlmevalkit": templates.VLMEVALKIT_SHORT,
        "aria": templates.aria(32, images=templates.ARIA_IN_CROPS),
    },
)
_TEXTVQA_OCR = replace(
    _TEXTVQA,
    key="textvqa_val_ocr",
    needed=("image_id", "question", "ocr_tokens"),
    used=("answers",),
    prompts={
        "lmms": templates.transformed(
            _capitalized,
            PromptTemplate(
                f"{{question}}\nReference OCR token: {{ocr_tokens}}\n{templates.SHORT}", templates.LMMS_UNLIMITED
            ),
        )
    },
)
_DOCVQA = Benchmark(
    key="docvqa_val",
    # The server wants the question's number as a number, which the copy on the hub holds as text.
    to_item=question_from(group_lists=("question_types",), cluster="docId", facts={"questionId": Row.integer}),
    needed=("question", "docId"),
    used=("question_types", "answers"),
    key_column="questionId",
    rule="anls/rrc",
    prompts={
        "lmms": PromptTemplate(templates.QUESTION_SHORT, 32),
        "vlmevalkit": templates.VLMEVALKIT_SHORT,
        "aria": templates.aria(128, "Answer briefly and directly.", templates.ARIA_IN_CROPS),
        "llama": PromptTemplate(
            " Read the text in the image carefully and answer the question with the text as seen exactly in the image. "
            f"{templates.LLAMA_AS_SEEN}Question: {{question}}",
            512,
        ),
    },
)
_INFOVQA = Benchmark(
    key="infovqa_val",
    to_item=question_from(
        group_lists=("answer_type", "evidence", "operation/reasoning"), facts={"questionId": Row.integer}
    ),
    needed=("question",),
    used=("answer_type", "evidence", "operation/reasoning", "answers"),
    key_column="questionId",
    rule="anls/rrc",
    prompts={
        "lmms": PromptTemplate(templates.QUESTION_SHORT, 32),
        "vlmevalkit": templates.VLMEVALKIT_SHORT,
        "aria": templates.aria(512, images=templates.ARIA_IN_CROPS),
    },
)
DATA_SETS: tuple[Benchmark, ...] = (
    _TEXTVQA,
    replace(_TEXTVQA, key="textvqa_test"),
    _TEXTVQA_OCR,
    _DOCVQA,
    replace(_DOCVQA, key="docvqa_test"),
    _INFOVQA,
    replace(_INFOVQA, key="infovqa_test"),
    Benchmark(
        key="chartqa",
        to_item=_chartqa,
        needed=("question", "answer", "type"),
        rule="relaxed/pix2struct",
        other_rules=("relaxed/mistral",),
        prompts={
            "lmms": PromptTemplate("{question}\nAnswer the question with a single word.", 16),
            "vlmevalkit": templates.VLMEVALKIT_SHORT,
            "aria": templates.aria(128, images=templates.ARIA_IN_CROPS),
            "llama": PromptTemplate(
                "You are provided a chart image and will be asked a question. You have to think through your answer "
                "and provide a step-by-step solution. Once you have the solution, write the final answer in at most a "
                'few words at the end with the phrase "FINAL ANSWER:". The question is: {question} Let\'s think step '
                "by step.",
                512,
                marker=templates.FINAL_ANSWER,
            ),
        },
    ),
    Benchmark(
        key="ocrbench",
        to_item=_ocrbench,
        needed=("dataset", "question", "question_type", "answer"),
        rule="ocrbench/official",
        other_rules=("ocrbench/lmms",),
        prompts={
            "lmms": templates.transformed(templates.stripped, PromptTemplate("{question}", 128)),
            "vlmevalkit": PromptTemplate("{question}", templates.VLMEVALKIT_OTHERS),
            "aria": templates.aria(512, images=templates.ARIA_IN_CROPS),
        },
        aggregation=Aggregation(_points),
    ),
)
