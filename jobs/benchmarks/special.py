"""Headlines that are no mean over rows: POPE's F1, MMBench's circular accuracy, OCRBench's points, captions' CIDEr-D.

It knows what is kept of each row of one benchmark, and calls what jobs/scoring has for the numbers.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.benchmarks.benchmark import Total
from jobs.scoring.captions.java import CaptionError
from jobs.scoring.captions.metrics import caption_metrics
from jobs.scoring.intervals import student
from jobs.scoring.rules.mmbench import ROTATION, circular, question_of
from jobs.scoring.rules.yes_no import YesNo, pope_metrics
from jobs.scoring.statistics import bootstrap, standard_error

log = logging.getLogger(__name__)

# Bootstrap intervals come out the same every time.
SEED = 0


@dataclass(frozen=True)
class Headline:
    """What the first number of a benchmark's report is.

    Attributes:
        total: Its kind; see jobs/benchmarks/benchmark.py.
        rule: The id of the rule that the rows were scored by.
        meteor: Whether captions are scored by METEOR too, which takes Java, a minute and 2 GB.
    """

    total: Total
    rule: str
    meteor: bool = False


def headline(rows: pa.Table, wanted: Headline) -> dict[str, Any]:
    """Return what takes the place of a mean's `metric, score, se, low, high, interval`, and further `metrics`.

    Args:
        rows: What is kept of each row of one benchmark.
        wanted: What its first number is.
    """
    if not rows.num_rows:
        return {}
    match wanted.total:
        case "yes_no":
            return _yes_no(rows, wanted.rule)
        case "circular":
            return _circular(rows)
        case "captions":
            return _captions(rows, wanted.meteor)
        case "points":
            right = sum(score or 0.0 for score in rows["score"].to_pylist())
            return {"metric": "share of points", "metrics": {"points": right}}
        case "subjects":
            return _subjects(rows)
        case "mean":
            return {}


def questions(rows: pa.Table) -> pa.Table:
    """Return one row for each question of MMBench: right only if every rotation is, and counted as its first one is.

    As in VLMEvalKit e8e78f0 a question whose first rotation is not there is left out. A row that could not be read, so
    that not even its index is known, is a question of its own.
    """
    together: dict[int, list[dict[str, Any]]] = {}
    strays: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        if _has_index(row):
            together.setdefault(question_of(_index(row)), []).append(row)
        else:
            strays.append(row)
    whole = [sorted(together[number], key=_index) for number in sorted(together)]
    merged = [_merged(rotations) for rotations in whole if _index(rotations[0]) < ROTATION]
    merged += [_merged([row]) for row in sorted(strays, key=lambda row: str(row["key"]))]
    table = pa.Table.from_pylist(merged, schema=_plain(rows.schema))
    # Each question stands for itself now.
    nothing = pa.nulls(table.num_rows, pa.int64())
    table = table.set_column(table.column_names.index("cluster"), "cluster", nothing)
    groups = table["groups"].combine_chunks().dictionary_encode()
    return table.set_column(table.column_names.index("groups"), "groups", groups)


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


def _plain(schema: pa.Schema) -> pa.Schema:
    kinds = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema]
    return pa.schema(list(zip(schema.names, kinds, strict=True)))


def _has_index(row: Mapping[str, Any]) -> bool:
    return row["facts"] is not None or str(row["key"]).isdecimal()


def _index(row: Mapping[str, Any]) -> int:
    return int(json.loads(row["facts"] or "{}").get("index", row["key"]))


def _circular(rows: pa.Table) -> dict[str, Any]:
    scored = [(_index(row), row["score"]) for row in rows.to_pylist() if row["score"] is not None]
    if not any(index < ROTATION for index, _ in scored):
        return {}
    found = circular(scored)
    metrics = {"vanilla (first rotation)": found.first_rotation, "all rows": found.all_rows}
    return {"metric": "every rotation right", "metrics": metrics}


def _yes_no(rows: pa.Table, rule: str) -> dict[str, Any]:
    listed = [row for row in rows.to_pylist() if row["answers"]]
    if not listed:
        return {}
    said = [YesNo(row["answers"][0].strip().lower(), row["parsed"], _category(row)) for row in listed]
    numbers = pope_metrics(said, rule)
    clusters = [row["key"] if row["cluster"] is None else row["cluster"] for row in listed]
    spread = bootstrap(_mean_f1(said), clusters, seed=SEED)
    score = numbers["mean_f1_over_categories"]
    is_known = score is not None
    return {
        "n": len(listed),
        "lost": rows.num_rows - len(listed),
        "metric": "mean F1 over categories",
        "score": score,
        "se": spread.error if is_known else None,
        "low": spread.low if is_known else None,
        "high": spread.high if is_known else None,
        "interval": "bootstrap" if is_known else None,
        "metrics": {
            **{f"pooled {name}": number for name, number in numbers["pooled"].items()},
            **{
                f"{category} {name}": number
                for category, found in numbers["per_category"].items()
                for name, number in found.items()
            },
        },
    }


def _mean_f1(said: Sequence[YesNo]) -> Any:
    """Return the mean F1 over categories as a function of the places of rows."""
    names = {name: place for place, name in enumerate(dict.fromkeys(row.category for row in said))}
    categories = np.array([names[row.category] for row in said])
    is_yes = np.array([row.label == "yes" for row in said], np.float64)
    says_yes = np.array([row.parsed == "yes" for row in said], np.float64)

    def f1(places: NDArray[np.intp]) -> float:
        drawn = categories[places]
        right = np.bincount(drawn, (is_yes * says_yes)[places], len(names))
        named = np.bincount(drawn, (is_yes + says_yes)[places], len(names))
        # A drawn category without any yes has no F1; nothing is right about it.
        return float(np.divide(2 * right, named, out=np.zeros_like(right), where=named > 0).mean())

    return f1


def _captions(rows: pa.Table, with_meteor: bool) -> dict[str, Any]:
    listed = [row for row in rows.to_pylist() if row["answers"]]
    if not listed:
        return {}
    candidates = {row["key"]: row["response_clean"] or "" for row in listed}
    references = {row["key"]: row["answers"] for row in listed}
    try:
        found = caption_metrics(candidates, references, meteor=with_meteor)
    except CaptionError as error:  # the answers are there, and `triptych report` can score them once Java is well
        if with_meteor:
            log.warning("captions have no METEOR: %s", error)
            return {**_captions(rows, False), "meteor_fault": str(error)}
        log.warning("captions have no score: %s", error)
        nothing = dict.fromkeys(("score", "se", "low", "high", "interval"))
        counts = {"n": len(listed), "unscored": rows.num_rows - len(listed)}
        return {"metric": "CIDEr-D", **nothing, **counts, "fault": str(error)}
    images = [found.images[row["key"]].cider_d for row in listed]
    # The words' rarity is held fixed while images vary: drawing images anew would change what each is worth.
    spread = standard_error(images)
    low, high = (None, None) if spread is None else student(found.cider_d, spread, len(images) - 1)
    metrics = {f"BLEU-{n}": score for n, score in enumerate(found.bleu, start=1)}
    return {
        "metric": "CIDEr-D",
        "score": found.cider_d,
        "se": spread,
        "low": low,
        "high": high,
        "interval": None if spread is None else "t",
        "n": len(listed),
        "unscored": rows.num_rows - len(listed),
        "tokenizer": found.tokenizer,
        "metrics": {**metrics, "ROUGE-L": found.rouge_l, "CIDEr-D": found.cider_d, "METEOR": found.meteor},
    }


def _subjects(rows: pa.Table) -> dict[str, Any]:
    scores: dict[str, list[float]] = {}
    for row in rows.to_pylist():
        if row["score"] is not None:
            scores.setdefault(_category(row), []).append(row["score"])
    means = [sum(found) / len(found) for found in scores.values()]
    return {"metric": "mean over rows (micro)", "metrics": {"mean over subjects (macro)": _mean(means)}}


def _category(row: Mapping[str, Any]) -> str:
    """Return the cell of the row's first breakdown."""
    cells = json.loads(row["groups"])
    return str(cells[0][1]) if cells else ""


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
