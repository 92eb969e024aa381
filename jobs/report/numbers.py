"""The numbers of a run, as report.json has them. It knows columns and counts, not how they are shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.results import Results
from pipeline.job import Job

EXAMPLES_PER_FAILURE = 3


def numbers_of(results: Results, job: Job) -> dict[str, Any]:
    """Return everything that report.json holds.

    `rows` are the input's, `answers` the results': a row that asked for several pictures has several. `failed` counts
    answers.

    Rates are over the time in which a start of the run worked, all starts together; waiting between them and
    the loading of the model before the first unit are in `seconds` as the starts measured it.
    """
    rows = results.rows
    seconds = sum(attempt["seconds"] for attempt in results.attempts)
    answered = sum(attempt["answered"] for attempt in results.attempts)
    written = sum(attempt["output_tokens"] for attempt in results.attempts)
    summary = _summary(results, job)
    return {
        "job": job.kind,
        "uri": results.uri,
        "is_finished": results.is_finished,
        "rows": results.finished_rows,
        "planned_rows": results.planned_rows,
        "answers": rows.num_rows,
        "failed": rows.num_rows - rows["error"].null_count,
        "seconds": round(seconds, 3),
        "tokens": _sum(rows["output_tokens"]),
        "prompt_tokens": _sum(rows["prompt_tokens"]),
        "image_tokens": _sum(rows["image_tokens"]),
        "rows_per_second": round(answered / seconds, 3) if seconds else None,
        "tokens_per_second": round(written / seconds, 3) if seconds else None,
        "finish_reasons": _counts(rows["finish_reason"]),
        "failures": failures(rows),
        "oddities": dict(sorted(results.oddities.items(), key=lambda item: (-item[1], item[0]))),
        "warnings": list(results.warnings),
        **summary,
        **_picture_rate(summary, results.finished_rows, answered, seconds),
        "attempts": len(results.attempts),
        "device": results.frozen["device"],
        "weights": results.frozen["weights"],
        "versions": results.frozen["versions"],
        "settings": results.frozen["settings"],
    }


def failures(rows: pa.Table) -> list[dict[str, Any]]:
    """Count the error rows by stage and type, the most frequent first, with a few examples of each."""
    failed = rows.filter(rows["error"].is_valid()).select(["key", "error"]).to_pylist()
    kinds: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in failed:
        error = row["error"]
        kinds.setdefault((error["stage"], error["type"]), []).append({"key": row["key"], "message": error["message"]})
    counted = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"stage": stage, "type": kind, "count": len(found), "examples": found[:EXAMPLES_PER_FAILURE]}
        for (stage, kind), found in counted
    ]


def _summary(results: Results, job: Job) -> dict[str, Any]:
    """Return the job's own numbers; a score also says how many rows it still misses."""
    summary = dict(job.summarize(results.rows))
    missing = results.planned_rows - results.finished_rows
    scores: Mapping[str, Mapping[str, Any]] = summary.get("scores", {})
    return {**summary, "scores": {name: {**score, "missing": missing} for name, score in scores.items()}}


def _picture_rate(summary: Mapping[str, Any], rows: int, answered: int, seconds: float) -> dict[str, float | None]:
    """Return how fast pictures were drawn, where the job counts any: as many for each row as all rows have."""
    if "pictures" not in summary:
        return {}
    drawn = summary["pictures"] * answered / rows if rows else 0
    return {"pictures_per_second": round(drawn / seconds, 3) if seconds else None}


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts: Sequence[Mapping[str, Any]] = pc.value_counts(column).to_pylist()
    return {str(one["values"]): int(one["counts"]) for one in counts}
