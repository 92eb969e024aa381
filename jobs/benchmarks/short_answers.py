"""Questions with a short free answer: VQAv2, GQA, OK-VQA, TextVQA, DocVQA, InfographicVQA, ChartQA, POPE, OCRBench.

Each function turns a row, by the data set's own column names, into a question. It knows no images and no wording.
"""

from dataclasses import replace

from jobs.benchmarks.benchmark import Benchmark, Item, Row
from jobs.benchmarks.cells import (
    bad,
    cells,
    cells_of,
    decoded,
    fields,
    gold,
    gold_text,
    gold_text_or_list,
    is_absent,
    text,
    text_or_none,
    texts_or_none,
    whole,
)
from jobs.scoring.rules.text_match import OCRBENCH_GROUPS


def vqav2(row: Row) -> Item:
    """A question with ten answers, given as a list of structs."""
    image = whole(row, "image_id")
    return Item(
        question=text(row, "question"),
        answers=_ten_answers(row),
        groups=cells_of(row, "answer_type", "question_type"),
        cluster=str(image),
        facts={"question_id": whole(row, "question_id"), "image_id": image},
    )


def _ten_answers(row: Row) -> tuple[str, ...] | None:
    value = row.get("answers")
    if is_absent(value) or value == "":
        return None
    found = decoded(value, "answers", "a list of answers")
    if not isinstance(found, list | tuple):
        raise bad("answers", value, "a list of answers")
    listed = [one.get("answer") if isinstance(one, dict) else one for one in found]
    return gold({"answers": listed}, "answers")


def gqa(row: Row) -> Item:
    """A question about a scene graph; the types of its question are structs."""
    types = fields(row, "types")
    structural = text_or_none(types, "structural")
    # As the authors' evaluation divides them.
    form = [] if structural is None else [("form", "open" if structural == "query" else "binary")]
    return Item(
        question=text(row, "question"),
        answers=gold_text(row, "answer"),
        groups=(*cells_of(types, "structural", "semantic", "detailed"), *form),
        cluster=text(row, "imageId"),
        facts={"id": text(row, "id"), "imageId": text(row, "imageId"), "isBalanced": row.get("isBalanced")},
    )


def ok_vqa(row: Row) -> Item:
    """A question that takes outside knowledge, with ten answers."""
    return Item(
        question=text(row, "question"),
        answers=gold(row, "answers"),
        groups=cells_of(row, "question_type", "answer_type"),
        facts={"question_id": whole(row, "question_id")},
    )


def textvqa(row: Row) -> Item:
    """A question about the text in a picture, with ten answers; what an OCR system read is kept among the facts."""
    return Item(
        question=text(row, "question"),
        answers=gold(row, "answers"),
        facts={
            "question_id": whole(row, "question_id"),
            "image_id": text(row, "image_id"),
            "ocr_tokens": list(texts_or_none(row, "ocr_tokens") or ()),
        },
    )


def docvqa(row: Row) -> Item:
    """A question about a page; the server wants its number, which the copy on the hub holds as text."""
    return Item(
        question=text(row, "question"),
        answers=gold(row, "answers"),
        groups=cells("question_types", texts_or_none(row, "question_types") or ()),
        cluster=text(row, "docId"),
        facts={"questionId": whole(row, "questionId")},
    )


def infovqa(row: Row) -> Item:
    """A question about an infographic, under several kinds of answer, evidence and operation."""
    kinds = ("answer_type", "evidence", "operation/reasoning")
    return Item(
        question=text(row, "question"),
        answers=gold(row, "answers"),
        groups=tuple(cell for kind in kinds for cell in cells(kind, texts_or_none(row, kind) or ())),
        facts={"questionId": whole(row, "questionId")},
    )


def chartqa(row: Row) -> Item:
    """A question about a chart, by a person or made from its data."""
    return Item(
        question=text(row, "question"),
        answers=gold_text(row, "answer"),
        groups=cells("type", [text(row, "type").removesuffix("_test")]),
    )


def pope(row: Row) -> Item:
    """Whether an object is in a picture; a third of the questions each is about random, popular, likely objects."""
    image = text_or_none(row, "image_source")
    category = text(row, "category")
    return Item(
        question=text(row, "question"),
        answers=gold_text(row, "answer"),
        groups=(("category", category),),
        cluster=image,
        facts={"id": text(row, "id"), "category": category},
    )


def ocrbench(row: Row) -> Item:
    """A question about text in a picture; which data set it is from decides how its answer is compared."""
    kind = text(row, "question_type")
    if kind not in OCRBENCH_GROUPS:
        raise bad("question_type", kind, f"one of {', '.join(OCRBENCH_GROUPS)}")
    return Item(
        question=text(row, "question"),
        answers=gold_text_or_list(row, "answer"),
        groups=(("group", OCRBENCH_GROUPS[kind]), ("question_type", kind)),
        facts={"dataset": text(row, "dataset"), "question_type": kind},
    )


_VQAV2 = Benchmark(
    key="vqav2_val",
    item=vqav2,
    needed=("image_id", "question"),
    used=("question_type", "answer_type", "answers"),
    key_column="question_id",
    rule="vqa/always_norm",
    other_rules=("vqa/official_2021", "vqa/m4c"),
    asked_as="vqav2",
)
_TEXTVQA = Benchmark(
    key="textvqa_val",
    item=textvqa,
    needed=("image_id", "question"),
    used=("answers", "ocr_tokens"),
    key_column="question_id",
    rule="vqa/m4c",
    other_rules=("vqa/always_norm", "vqa/vlmevalkit"),
    asked_as="textvqa",
)
_DOCVQA = Benchmark(
    key="docvqa_val",
    item=docvqa,
    needed=("question", "docId"),
    used=("question_types", "answers"),
    key_column="questionId",
    rule="anls/rrc",
    asked_as="docvqa",
)
_INFOVQA = Benchmark(
    key="infovqa_val",
    item=infovqa,
    needed=("question",),
    used=("answer_type", "evidence", "operation/reasoning", "answers"),
    key_column="questionId",
    rule="anls/rrc",
    asked_as="infovqa",
)
DATA_SETS: tuple[Benchmark, ...] = (
    _VQAV2,
    replace(_VQAV2, key="vqav2_testdev"),
    replace(_VQAV2, key="vqav2_test"),
    Benchmark(
        key="gqa",
        item=gqa,
        needed=("question", "imageId"),
        used=("answer", "types", "isBalanced"),
        key_column="id",
        images=("imageId",),
        join=("id", "image"),
        rule="exact/nocase_nopunct",
        other_rules=("exact/official", "exact/llava_submission"),
        asked_as="gqa",
    ),
    Benchmark(
        key="ok_vqa",
        item=ok_vqa,
        needed=("question",),
        used=("answers", "question_type", "answer_type"),
        key_column="question_id",
        rule="vqa/m4c",
        other_rules=("vqa/always_norm",),
        asked_as="ok_vqa",
    ),
    _TEXTVQA,
    replace(_TEXTVQA, key="textvqa_test"),
    replace(
        _TEXTVQA,
        key="textvqa_val_ocr",
        needed=("image_id", "question", "ocr_tokens"),
        used=("answers",),
        asked_as="textvqa_ocr",
    ),
    _DOCVQA,
    replace(_DOCVQA, key="docvqa_test"),
    _INFOVQA,
    replace(_INFOVQA, key="infovqa_test"),
    Benchmark(
        key="chartqa",
        item=chartqa,
        needed=("question", "answer", "type"),
        rule="relaxed/pix2struct",
        other_rules=("relaxed/mistral",),
        asked_as="chartqa",
    ),
    Benchmark(
        key="pope",
        item=pope,
        needed=("question", "answer", "category"),
        used=("image_source",),
        key_column="id",
        rule="pope/official",
        other_rules=("pope/lmms", "pope/vlmevalkit"),
        asked_as="pope",
        total="yes_no",
    ),
    Benchmark(
        key="ocrbench",
        item=ocrbench,
        needed=("dataset", "question", "question_type", "answer"),
        rule="ocrbench/official",
        other_rules=("ocrbench/lmms",),
        asked_as="ocrbench",
        total="points",
    ),
)
