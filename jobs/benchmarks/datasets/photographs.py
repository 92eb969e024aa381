"""Questions about photographs: VQAv2, GQA, OK-VQA and POPE, with POPE's F1."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Aggregation, Benchmark, Item, PromptTemplate, question_from
from jobs.benchmarks.row import Row
from jobs.benchmarks.totals import first_group
from jobs.scoring.rules.yes_no import YesNo, pope_metrics
from jobs.scoring.statistics import bootstrap

_UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
# Bootstrap intervals come out the same every time.
_SEED = 0


def _ten_answers(row: Row, column: str) -> tuple[str, ...] | None:
    """Read answers that may be structs."""
    if row.is_empty(column) or row[column] == "":
        return None
    answers = [
        answer.get("answer") if isinstance(answer, dict) else answer
        for answer in row.list_of(column, "a list of answers")
    ]
    return Row({column: answers}).gold_answers(column)


def _gqa(row: Row) -> Item:
    """Read a question about a scene graph; the types of its question are structs."""
    types = row.struct("types")
    structural = types.text_or_none("structural")
    # As the authors' evaluation divides them.
    form = [] if structural is None else [("form", "open" if structural == "query" else "binary")]
    return Item(
        question=row.text("question"),
        answers=row.gold_answer("answer"),
        groups=(*types.groups("structural", "semantic", "detailed"), *form),
        cluster=row.text("imageId"),
        facts={
            "id": row.text("id"),
            "imageId": row.text("imageId"),
            "isBalanced": row.get("isBalanced"),
        },
    )


def _pope(row: Row) -> Item:
    """Read whether an object is in a picture; objects are random, popular or likely, in a third of the rows each."""
    category = row.text("category")
    return Item(
        question=row.text("question"),
        answers=row.gold_answer("answer"),
        groups=(("category", category),),
        cluster=row.text_or_none("image_source"),
        facts={"id": row.text("id"), "category": category},
    )


def _pope_headline(rows: pa.Table, rule: str, with_meteor: bool) -> dict[str, Any]:
    """Return the mean F1 of yes over categories."""
    labelled = [row for row in rows.to_pylist() if row["answers"]]
    if not labelled:
        return {}
    read = [YesNo(row["answers"][0].strip().lower(), row["parsed"], first_group(row)) for row in labelled]
    numbers = pope_metrics(read, rule)
    clusters = [row["key"] if row["cluster"] is None else row["cluster"] for row in labelled]
    spread = bootstrap(_mean_f1(read), clusters, seed=_SEED)
    is_known = numbers["mean_f1_over_categories"] is not None
    parts = {"pooled": numbers["pooled"], **numbers["per_category"]}
    return {
        "n": len(labelled),
        "lost": rows.num_rows - len(labelled),
        "metric": "mean F1 over categories",
        "score": numbers["mean_f1_over_categories"],
        "se": spread.error if is_known else None,
        "low": spread.low if is_known else None,
        "high": spread.high if is_known else None,
        "interval": "bootstrap" if is_known else None,
        "metrics": {f"{part} {name}": number for part, values in parts.items() for name, number in values.items()},
    }


def _mean_f1(rows: Sequence[YesNo]) -> Callable[[NDArray[np.intp]], float]:
    """Return the mean F1 over categories as a function of the places of rows."""
    names = {name: place for place, name in enumerate(dict.fromkeys(row.category for row in rows))}
    categories = np.array([names[row.category] for row in rows])
    is_yes = np.array([row.label == "yes" for row in rows], np.float64)
    says_yes = np.array([row.parsed == "yes" for row in rows], np.float64)

    def f1(places: NDArray[np.intp]) -> float:
        drawn = categories[places]
        right = np.bincount(drawn, (is_yes * says_yes)[places], len(names))
        named = np.bincount(drawn, (is_yes + says_yes)[places], len(names))
        # A drawn category without any yes has no F1; nothing is right about it.
        return float(np.divide(2 * right, named, out=np.zeros_like(right), where=named > 0).mean())

    return f1


_VQAV2 = Benchmark(
    key="vqav2_val",
    to_item=question_from(
        answers=_ten_answers,
        groups=("answer_type", "question_type"),
        cluster="image_id",
        facts={"question_id": Row.integer, "image_id": Row.integer},
    ),
    needed=("image_id", "question"),
    used=("question_type", "answer_type", "answers"),
    key_column="question_id",
    rule="vqa/always_norm",
    other_rules=("vqa/official_2021", "vqa/m4c"),
    prompts={
        "lmms": PromptTemplate(templates.QUESTION_SHORT, 16),
        "vlmevalkit": templates.VLMEVALKIT_SHORT,
        "aria": templates.aria(512),
        "llama": PromptTemplate(
            " Look at the image carefully and answer this visual question. "
            f"{templates.LLAMA_AS_SEEN}Respond with as few words as possible.\n Question: {{question}}",
            25,
        ),
    },
)
DATA_SETS: tuple[Benchmark, ...] = (
    _VQAV2,
    replace(_VQAV2, key="vqav2_testdev"),
    replace(_VQAV2, key="vqav2_test"),
    Benchmark(
        key="gqa",
        to_item=_gqa,
        needed=("question", "imageId"),
        used=("answer", "types", "isBalanced"),
        key_column="id",
        images=("imageId",),
        join=("id", "image"),
        rule="exact/nocase_nopunct",
        other_rules=("exact/official", "exact/llava_submission"),
        prompts={
            "lmms": PromptTemplate(templates.QUESTION_SHORT, 16),
            "vlmevalkit": templates.VLMEVALKIT_SHORT,
            "aria": templates.aria(512),
        },
    ),
    Benchmark(
        key="ok_vqa",
        to_item=question_from(groups=("question_type", "answer_type"), facts={"question_id": Row.integer}),
        needed=("question",),
        used=("answers", "question_type", "answer_type"),
        key_column="question_id",
        rule="vqa/m4c",
        other_rules=("vqa/always_norm",),
        prompts={
            "lmms": PromptTemplate(f"{{question}}\n{_UNANSWERABLE}\n{templates.SHORT}", templates.LMMS_UNLIMITED),
            "vlmevalkit": templates.VLMEVALKIT_SHORT,
            "aria": templates.aria(512),
        },
    ),
    Benchmark(
        key="pope",
        to_item=_pope,
        needed=("question", "answer", "category"),
        used=("image_source",),
        key_column="id",
        rule="pope/official",
        other_rules=("pope/lmms", "pope/vlmevalkit"),
        prompts={
            "lmms": templates.transformed(templates.stripped, PromptTemplate(templates.QUESTION_SHORT, 128)),
            "vlmevalkit": PromptTemplate("{question}", templates.VLMEVALKIT_OPTIONS),
            "aria": templates.aria(64),
        },
        aggregation=Aggregation(_pope_headline),
    ),
)
