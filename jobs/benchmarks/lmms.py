"""The wording of lmms-eval's tasks, and how many tokens each may answer with.

Source: lmms-eval 75571cf, the `default` variant of each task; the tasks in words only are those of
lm-evaluation-harness 4e7e0d4, which lmms-eval carries, too.
"""

import re
from collections.abc import Callable, Mapping

from jobs.benchmarks.benchmark import Item
from jobs.benchmarks.texts import with_options
from jobs.benchmarks.wording import LETTER, SHORT, Asked, instructed, optioned, question, stripped

# What its wrappers of models take where a task sets no limit.
_UNLIMITED = 1024
_UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
_LETTER_CN = "请直接使用所提供的选项字母作为答案回答。"
_FUNCTION = "Write a solution to the following problem and make sure that it passes the tests:"
_AROUND_MARKS = re.compile(r"\s*(<image \d+>)\s*")
# MMStar and RealWorldQA hold instructions of their own, of which this one is taken out.
_YES_OR_NO = " Please answer yes or no."

_DECIMALS = {1: "one decimal place", 2: "two decimal places"}
_FLOATS = {1: "1.2, 1.3, 1.4", 2: "1.23, 1.34, 1.45"}


def _pope(item: Item) -> str:
    return f"{item.question.strip()}\n{SHORT}"


def _textvqa(item: Item) -> str:
    # Python's `capitalize` makes all other letters small.
    return f"{item.question.capitalize()}\n{SHORT}"


def _textvqa_ocr(item: Item) -> str:
    return f"{item.question.capitalize()}\nReference OCR token: {', '.join(item.facts['ocr_tokens'])}\n{SHORT}"


def _scienceqa(item: Item) -> str:
    context = f"Context: {item.context}\n" if item.context else ""
    return f"{context}{with_options(item.question, item.choices)}\n{LETTER}"


def _mmmu(item: Item) -> str:
    """Put the pictures where they are mentioned, without white space around, as its messages do."""
    asked = with_options(item.question, item.choices)
    return _AROUND_MARKS.sub(r"\1", f"{asked}\n\n{LETTER if item.choices else SHORT}".strip())


def _mmbench(instruction: str) -> Callable[[Item], str]:
    def asked(item: Item) -> str:
        hint = f"{item.context} " if item.context else ""
        return f"{hint}{with_options(f'{item.question} There are several options:', item.choices)}\n\n{instruction}"

    return asked


def _mmstar(item: Item) -> str:
    return f"{item.question.strip().replace(_YES_OR_NO, '')}\n{LETTER.rstrip('.')}"


def _longvideobench(item: Item) -> str:
    frames = f"{item.context}\n" if item.context else ""
    return f"{frames}{with_options(item.question, item.choices)}\n{LETTER}\n"


def _mathvista(item: Item) -> str:
    """The variant `format`: options with letters, and the form of the answer in one sentence."""
    unit = _unit(item)
    return _joined(with_options(f"{item.question}{unit}", item.choices), _form(item))


def _form(item: Item) -> str:
    match item.facts["answer_type"]:
        case _ if item.facts["question_type"] == "multi_choice":
            return LETTER
        case "integer":
            return "Answer the question using a single integer number."
        case "float":
            decimals = _DECIMALS.get(item.facts["precision"])
            return f"Answer the question using a single floating-point number with {decimals}." if decimals else ""
        case "list":
            return "Answer the question using a Python list."
    return ""


def _mathvista_solution(item: Item) -> str:
    hint = _hint(item)
    return _joined(_posed(item), f"Hint: Please {hint}, at the end." if hint else "", "Solution:")


def _mathvista_reason_first(item: Item) -> str:
    hint = _hint(item)
    if item.facts["question_type"] == "multi_choice":
        told = "select the question from the choices in the following format: Answer: xxx."
    else:
        told = f"{hint}, at the end in the following format: Answer: xxx."
    return _joined(f"First perform reasoning, then finally {told}" if hint else "", _posed(item))


def _hint(item: Item) -> str:
    if item.facts["question_type"] == "multi_choice":
        return "answer the question and provide the correct option letter, e.g., A, B, C, D"
    match item.facts["answer_type"]:
        case "integer":
            form = "an integer answer and provide the final value, e.g., 1, 2, 3"
        case "float" if item.facts["precision"] in _DECIMALS:
            decimals, examples = _DECIMALS[item.facts["precision"]], _FLOATS[item.facts["precision"]]
            form = f"a floating-point number with {decimals} and provide the final value, e.g., {examples}"
        case "list":
            form = "a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]"
        case _:
            return ""
    return f"answer the question requiring {form}"


def _posed(item: Item) -> str:
    choices = [f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(item.choices)]
    return "\n".join([f"Question: {item.question}{_unit(item)}", *(["Choices:", *choices] if choices else [])])


def _unit(item: Item) -> str:
    return f" (Unit: {item.facts['unit']})" if item.facts["unit"] else ""


def _joined(*lines: str) -> str:
    return "\n".join(line for line in lines if line).strip()


def _mmlu(item: Item) -> str:
    return f"{item.context}\n\n{with_options(item.question, item.choices)}\nAnswer:"


def _arc(item: Item) -> str:
    return f"Question: {with_options(item.question, item.choices)}\nAnswer:"


def _arc_continued(item: Item) -> str:
    return f"Question: {item.question}\nAnswer:"


def _humaneval(item: Item) -> str:
    return f"{_FUNCTION}\n```python\n{item.question}\n```\n"


LMMS: Mapping[str, Asked] = {
    "vqav2": Asked(instructed(SHORT), 16),
    "gqa": Asked(instructed(SHORT), 16),
    "ok_vqa": Asked(instructed(f"{_UNANSWERABLE}\n{SHORT}"), _UNLIMITED),
    "textvqa": Asked(_textvqa, _UNLIMITED),
    "textvqa_ocr": Asked(_textvqa_ocr, _UNLIMITED),
    "docvqa": Asked(instructed(SHORT), 32),
    "infovqa": Asked(instructed(SHORT), 32),
    "chartqa": Asked(instructed("Answer the question with a single word."), 16),
    "pope": Asked(_pope, 128),
    "ocrbench": Asked(stripped, 128),
    "ai2d": Asked(optioned(LETTER), 16),
    "scienceqa": Asked(_scienceqa, 16),
    "mmmu": Asked(_mmmu, 128),
    "mmmu_test": Asked(_mmmu, 512),
    "mathvista": Asked(_mathvista, 16384),
    "mmbench_en": Asked(_mmbench(LETTER), 1024),
    "mmbench_cn": Asked(_mmbench(_LETTER_CN), 256),
    "realworldqa": Asked(stripped, 16),
    "mmstar": Asked(_mmstar, _UNLIMITED),
    "longvideobench": Asked(_longvideobench, 32),
    "coco_caption": Asked(question, 64),
    "caption": Asked(question, 64),
    "mmlu": Asked(_mmlu, 16),
    "arc_challenge": Asked(_arc, 16),
    "arc_challenge_continued": Asked(_arc_continued, 16),
    "math": Asked(question, 2048),
    "humaneval": Asked(_humaneval, 1024),
}

# MathVista alone has tasks in other wordings.
LMMS_SOLUTION: Mapping[str, Asked] = {"mathvista": Asked(_mathvista_solution, 16384)}
LMMS_REASON_FIRST: Mapping[str, Asked] = {"mathvista": Asked(_mathvista_reason_first, 16384)}
