"""MMBench, in English and Chinese, versions 1.0 and 1.1: a question is right only with its options in every order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Aggregation, Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, bad_column, groups_of
from jobs.scoring.rules.mmbench import ROTATION, circular, question_of

_LETTERS = "ABCDE"
_LETTER_CN = "请直接使用所提供的选项字母作为答案回答。"


def _mmbench(row: Row) -> Item:
    """Read one rotation of a question; version 1.0 writes "nan" for a missing hint or option, 1.1 an empty cell.

    An option that is missing between others keeps its letter: its text is empty.
    """
    index = row.integer("index")
    options = [_text(row, option) for option in _LETTERS]
    last = max((place for place, option in enumerate(options) if option is not None), default=-1)
    if last < 0:
        raise bad_column("A", row.get("A"), "an option's text")
    answer = _text(row, "answer")
    l2 = "L2-category" if _text(row, "L2-category") is not None else "l2-category"
    named = {"category": _text(row, "category"), "l2-category": _text(row, l2)}
    return Item(
        question=row.text("question"),
        answers=None if answer is None else (answer,),
        choices=tuple(option or "" for option in options[: last + 1]),
        context=_text(row, "hint") or "",
        groups=tuple(group for name, value in named.items() for group in groups_of(name, [value])),
        cluster=str(question_of(index)),
        facts={"index": index, **named, **{column: _text(row, column) for column in ("source", "split")}},
    )


def _text(row: Row, column: str) -> str | None:
    value = row.text_or_none(column)
    return None if value is None or value.strip() in ("", "nan") else value


def _lmms(max_new_tokens: int, instruction: str) -> PromptTemplate:
    def render(item: Item) -> str:
        hint = f"{item.context} " if item.context else ""
        return f"{hint}{item.with_options(f'{item.question} There are several options:')}\n\n{instruction}"

    return PromptTemplate(render, max_new_tokens)


def _merge_rotations(rows: pa.Table) -> pa.Table:
    """Return one row for each question: right only if every rotation is, and counted as its first one is.

    As in VLMEvalKit e8e78f0 a question whose first rotation is not there is left out. A row that could not be read, so
    that not even its index is known, is a question of its own.
    """
    questions: dict[int, list[dict[str, Any]]] = {}
    unnamed: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        if row["facts"] is not None or str(row["key"]).isdecimal():
            questions.setdefault(question_of(_index(row)), []).append(row)
        else:
            unnamed.append(row)
    rotations = [sorted(questions[number], key=_index) for number in sorted(questions)]
    merged = [_merged(group) for group in rotations if _index(group[0]) < ROTATION]
    merged += [_merged([row]) for row in sorted(unnamed, key=lambda row: str(row["key"]))]
    # Each question stands for itself now.
    return pa.Table.from_pylist([{**row, "cluster": None} for row in merged], schema=rows.schema)


def _merged(rotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    read = [row["score"] for row in rotations if not row["is_lost"]]
    # Where all of them are lost, totals say what that means, as of any lost row.
    is_known = bool(read) and None not in read
    return {
        **rotations[0],
        "score": (min(read) if len(read) == len(rotations) else 0.0) if is_known else None,
        "is_failed": any(row["is_failed"] for row in rotations),
        "is_truncated": any(row["is_truncated"] for row in rotations),
    }


def _index(row: Mapping[str, Any]) -> int:
    return int(json.loads(row["facts"] or "{}").get("index", row["key"]))


def _headline(rows: pa.Table, rule: str, with_meteor: bool) -> dict[str, Any]:
    """Return what rotations come to one by one; the share of right questions is the mean over merged rows."""
    scored = [(_index(row), row["score"]) for row in rows.to_pylist() if row["score"] is not None]
    if not any(index < ROTATION for index, _ in scored):
        return {}
    rotations = circular(scored)
    metrics = {"vanilla (first rotation)": rotations.first_rotation, "all rows": rotations.all_rows}
    return {"metric": "every rotation right", "metrics": metrics}


_EN_DEV = Benchmark(
    key="mmbench_en_dev",
    to_item=_mmbench,
    needed=("question", "A", "B"),
    used=("hint", "answer", "C", "D", "E", "category", "L2-category", "l2-category", "source", "split"),
    key_column="index",
    rule="mcq/prefetch",
    other_rules=("mcq/ranked",),
    prompts={
        "lmms": _lmms(1024, templates.LETTER),
        "vlmevalkit": templates.VLMEVALKIT_CHOOSE,
        "aria": templates.aria(64),
    },
    aggregation=Aggregation(_headline, _merge_rotations),
)
_CN_DEV = replace(
    _EN_DEV,
    key="mmbench_cn_dev",
    prompts={**_EN_DEV.prompts, "lmms": _lmms(256, _LETTER_CN)},
)
# A short cell of version 1.1's image column is the index of the row that holds the picture.
_JOIN = ("index", "image")
DATA_SETS: tuple[Benchmark, ...] = (
    _EN_DEV,
    replace(_EN_DEV, key="mmbench_en_test"),
    _CN_DEV,
    replace(_CN_DEV, key="mmbench_cn_test"),
    replace(_EN_DEV, key="mmbench_dev_en_v11", join=_JOIN),
    replace(_EN_DEV, key="mmbench_test_en_v11", join=_JOIN),
    replace(_CN_DEV, key="mmbench_dev_cn_v11", join=_JOIN),
    replace(_CN_DEV, key="mmbench_test_cn_v11", join=_JOIN),
)
