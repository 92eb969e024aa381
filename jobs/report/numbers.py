"""The numbers of a run, as report.json has them. It knows columns and counts, not how they are shown."""

from collections.abc import Mapping
from typing import Any

from jobs.report.results import Results
from pipeline.job import Job


def numbers_of(results: Results, job: Job) -> dict[str, Any]:
    """Return everything that report.json holds.

    `rows` are the input's, `answers` the results': a row that asked for several pictures has several. `failed` counts
    answers.

    Rates are over the time in which a start of the run worked, all starts together; waiting between them and
    the loading of the model before the first unit are in `seconds` as the starts measured it.
    """
    counts = results.gathered.counts
    seconds = sum(attempt["seconds"] for attempt in results.attempts)
    answered = sum(attempt["answered"] for attempt in results.attempts)
    written = sum(attempt["output_tokens"] for attempt in results.attempts)
    summary = _summary(results, job)
    return {
        "job": job.kind,
        "uri": results.uri,
        "is_finished": results.is_finished,
        "rows": counts.rows,
        "planned_rows": results.planned_rows,
        "answers": counts.answers,
        "failed": counts.failed,
        "seconds": round(seconds, 3),
        "tokens": counts.tokens["output_tokens"],
        "prompt_tokens": counts.tokens["prompt_tokens"],
        "image_tokens": counts.tokens["image_tokens"],
        "rows_per_second": round(answered / seconds, 3) if seconds else None,
        "tokens_per_second": round(written / seconds, 3) if seconds else None,
        "finish_reasons": dict(counts.finish_reasons),
        "failures": counts.failures,
        "oddities": dict(sorted(results.gathered.oddities.items(), key=lambda item: (-item[1], item[0]))),
        "warnings": list(results.warnings),
        **summary,
        **_picture_rate(summary, counts.rows, answered, seconds),
        "attempts": len(results.attempts),
        "device": results.frozen["device"],
        "weights": results.frozen["weights"],
        "versions": results.frozen["versions"],
        "settings": results.frozen["settings"],
    }


def _summary(results: Results, job: Job) -> dict[str, Any]:
    """Return the job's own numbers; a score also says how many rows it still misses."""
    summary = dict(job.summarize(results.gathered.narrow))
    missing = results.planned_rows - results.gathered.counts.rows
    scores: Mapping[str, Mapping[str, Any]] = summary.get("scores", {})
    return {**summary, "scores": {name: {**score, "missing": missing} for name, score in scores.items()}}


def _picture_rate(summary: Mapping[str, Any], rows: int, answered: int, seconds: float) -> dict[str, float | None]:
    """Return how fast pictures were drawn, where the job counts any: as many for each row as all rows have."""
    if "pictures" not in summary:
        return {}
    drawn = summary["pictures"] * answered / rows if rows else 0
    return {"pictures_per_second": round(drawn / seconds, 3) if seconds else None}
