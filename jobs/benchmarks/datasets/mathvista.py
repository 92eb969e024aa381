"""MathVista: mathematics about pictures, with options or open; lmms-eval puts its questions in three ways."""

from dataclasses import replace

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, groups_of

_BREAKDOWNS = ("language", "source", "category", "task", "context", "grade")
# By the number of decimals.
_DECIMALS = {1: "one decimal place", 2: "two decimal places"}
_EXAMPLES = {1: "1.2, 1.3, 1.4", 2: "1.23, 1.34, 1.45"}
_LMMS_TOKENS = 16384


def _mathvista(row: Row) -> Item:
    """Read a question; an option's gold answer is its text, as the official rule compares.

    The column `query` holds the official prompt.
    """
    described = row.struct("metadata")
    question_type, answer_type = row.text("question_type"), row.text("answer_type")
    groups = [
        ("question_type", question_type),
        ("answer_type", answer_type),
        *described.groups(*_BREAKDOWNS),
    ]
    return Item(
        question=row.text("question"),
        answers=row.gold_answer("answer"),
        choices=row.texts_or_none("choices") or (),
        groups=(*groups, *groups_of("skills", described.texts_or_none("skills"))),
        facts={
            "pid": row.text("pid"),
            "query": row.text("query"),
            "unit": row.text_or_none("unit") or "",
            "question_type": question_type,
            "answer_type": answer_type,
            "precision": None if row.is_empty("precision") else int(row.number("precision")),
        },
    )


def _lmms(item: Item) -> str:
    """The variant `format`: options with letters, and the form of the answer in one sentence."""
    return _joined(item.with_options(f"{item.question}{_unit(item)}"), _form(item))


def _form(item: Item) -> str:
    match item.facts["answer_type"]:
        case _ if item.facts["question_type"] == "multi_choice":
            return templates.LETTER
        case "integer":
            return "Answer the question using a single integer number."
        case "float":
            decimals = _DECIMALS.get(item.facts["precision"])
            return f"Answer the question using a single floating-point number with {decimals}." if decimals else ""
        case "list":
            return "Answer the question using a Python list."
    return ""


def _lmms_solution(item: Item) -> str:
    hint = _hint(item)
    return _joined(_with_bracketed_options(item), f"Hint: Please {hint}, at the end." if hint else "", "Solution:")


def _lmms_reason_first(item: Item) -> str:
    hint = _hint(item)
    if item.facts["question_type"] == "multi_choice":
        finally_ = "select the question from the choices in the following format: Answer: xxx."
    else:
        finally_ = f"{hint}, at the end in the following format: Answer: xxx."
    return _joined(f"First perform reasoning, then finally {finally_}" if hint else "", _with_bracketed_options(item))


def _hint(item: Item) -> str:
    if item.facts["question_type"] == "multi_choice":
        return "answer the question and provide the correct option letter, e.g., A, B, C, D"
    match item.facts["answer_type"]:
        case "integer":
            form = "an integer answer and provide the final value, e.g., 1, 2, 3"
        case "float" if (precision := item.facts["precision"]) in _DECIMALS:
            decimals, examples = _DECIMALS[precision], _EXAMPLES[precision]
            form = f"a floating-point number with {decimals} and provide the final value, e.g., {examples}"
        case "list":
            form = "a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]"
        case _:
            return ""
    return f"answer the question requiring {form}"


def _with_bracketed_options(item: Item) -> str:
    options = [f"({chr(ord('A') + index)}) {option}" for index, option in enumerate(item.choices)]
    return "\n".join([f"Question: {item.question}{_unit(item)}", *(["Choices:", *options] if options else [])])


def _unit(item: Item) -> str:
    return f" (Unit: {item.facts['unit']})" if item.facts["unit"] else ""


def _joined(*lines: str) -> str:
    return "\n".join(line for line in lines if line).strip()


_MATHVISTA = Benchmark(
    key="mathvista_testmini",
    to_item=_mathvista,
    needed=("question", "query", "question_type", "answer_type", "choices", "precision"),
    used=("answer", "unit", "metadata"),
    key_column="pid",
    images=("decoded_image",),
    rule="mathvista/official",
    other_rules=("mathvista/rule_extract",),
    prompts={
        "lmms": PromptTemplate(_lmms, _LMMS_TOKENS),
        "lmms_solution": PromptTemplate(_lmms_solution, _LMMS_TOKENS),
        "lmms_reason_first": PromptTemplate(_lmms_reason_first, _LMMS_TOKENS),
        "vlmevalkit": PromptTemplate("{query}", templates.VLMEVALKIT_OTHERS),
        "aria": PromptTemplate("\n{query}", 512, images=templates.ARIA_WHOLE),
        "llama": PromptTemplate("{query}", 2048),
    },
)
DATA_SETS: tuple[Benchmark, ...] = (_MATHVISTA, replace(_MATHVISTA, key="mathvista_test"))
