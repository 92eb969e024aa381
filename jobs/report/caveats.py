"""What a reader must know before quoting a run's scores: sentences, only those that apply."""

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.benchmarks.datasets import BENCHMARKS
from jobs.report.formatting import count, percent

# From these shares on it is said how many answers were cut off or unreadable, and how many rows failed.
MANY_UNREAD = 0.05
MANY_FAILED = 0.01
# What split captions into words where the published tokeniser was missing.
TOKENIZERS = {
    "fallback": "captions were split by our own copy of the published tokeniser, which differs in rare cases; "
    "`pip install 'triptych[captions]'` brings the published one",
    "none": "captions were not split into words as for published metrics",
}

# What missing rows do to headlines that are no means.
OF_FEWER = {
    "CIDEr-D": ", and CIDEr-D over fewer images is not comparable",
    "every rotation right": ", and a question with missing rotations is scored by the others, which is easier",
}


def caveats_of(numbers: Mapping[str, Any]) -> list[str]:
    """Return what to say of a run that answers questions."""
    return [
        *_of_run(numbers),
        *(line for name, score in numbers["scores"].items() for line in _of(name, score, numbers)),
    ]


def _of_run(numbers: Mapping[str, Any]) -> Iterator[str]:
    settings = numbers["settings"]
    if not numbers["is_finished"]:
        yield "The run is not finished."
    if not numbers["scores"]:  # nothing that could be quoted
        return
    if limit := settings["read"].get("limit"):
        yield f"Only the first {count(limit)} rows were read (read.limit): scores are those of a sample."
    if settings["job"].get("fallback") == "random":
        yield "Where no answer could be read, an option was guessed (fallback: random): part of each score is luck."
    temperature = settings.get("generate", {}).get("sampling", {}).get("temperature")
    if temperature:
        yield f"Answers were sampled (temperature {temperature:g}): another seed gives other scores."


def _of(name: str, score: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[str]:
    entry = (numbers["settings"]["job"].get("benchmarks") or {}).get(name, {})
    yield from (f"{name}: {caveat}." for caveat in (*_of_entry(name, score, entry), *_of_answers(score)))


def _of_entry(name: str, score: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    if limit := entry.get("limit"):
        yield f"only the first {count(limit)} rows were asked (limit){OF_FEWER.get(score['metric'], '')}"
    if entry.get("rule"):
        default = BENCHMARKS[entry.get("dataset") or name].rule
        if entry["rule"] != default:
            yield f"scored by {entry['rule']}; published scores use {default}"
    if entry.get("prompt"):
        yield "asked with a prompt of the run's own, unlike any published score"


def _of_answers(score: Mapping[str, Any]) -> Iterator[str]:
    if fault := score.get("fault"):
        yield f"not scored, though its answers are there: {fault}; `triptych report` tries again"
    if fault := score.get("meteor_fault"):
        yield f"METEOR is left out: {fault}"
    if lost := score.get("lost"):
        yield f"{count(lost)} rows could not be read: their gold answers are unknown, and F1 leaves them out"
    if left_out := score.get("cells_left_out"):
        yield f"breakdowns have so many cells that the {count(left_out)} rarest are left out"
    rows = score["rows"]
    if score["missing"]:
        yield f"{count(score['missing'])} of {count(rows + score['missing'])} rows are missing{_counted(score)}"
    # What is counted is MMBench's questions, each of several rows, where it is not answers.
    counted = score["n"] + score["unscored"]
    wrong = ", and count as wrong" if score["n"] else ""
    for number, total, most, what in (
        (score["truncated"], counted, MANY_UNREAD, "of the answers were cut off at the token limit"),
        (_unread(score), rows, MANY_UNREAD, f"of the answers could not be read{wrong}"),
        (score["failed"], counted, MANY_FAILED, f"of the rows failed{wrong}"),
    ):
        if number > most * total:
            yield f"{percent(number / total)} {what}"
    if caveat := TOKENIZERS.get(score.get("tokenizer") or ""):
        yield caveat


def _counted(score: Mapping[str, Any]) -> str:
    if score.get("score_over_all") is None:
        return OF_FEWER.get(score["metric"], "") if score["score"] is not None else ""
    return f"; with them counted as wrong the score is {percent(score['score_over_all'])}"


def _unread(score: Mapping[str, Any]) -> int:
    statuses = score.get("statuses", {})
    return int(statuses.get("failed", 0) + statuses.get("refused", 0) + statuses.get("empty", 0))
