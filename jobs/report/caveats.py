"""What a reader must know before quoting a run's scores: sentences, only those that apply. It knows numbers only."""

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.benchmarks.table import BENCHMARKS
from jobs.report.amounts import count, percent

# From these shares on it is said how many answers were cut off or unreadable, and how many rows failed.
MANY_UNREAD = 0.05
MANY_FAILED = 0.01
# What cut captions into words where the published tokeniser was not at hand.
TOKENIZERS = {
    "fallback": "captions were cut into words by our own copy of the published tokeniser, which differs in rare cases; "
    "the extra captions brings the published one",
    "none": "captions were not cut into words as the published metrics do",
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
    if limit := settings["read"].get("limit"):
        yield f"Only the first {count(limit)} rows were read (read.limit): scores are those of a sample."
    if settings["job"].get("fallback") == "random":
        yield "Where no answer could be read, an option was guessed (fallback: random): part of each score is luck."
    temperature = settings.get("generate", {}).get("sampling", {}).get("temperature")
    if temperature:
        yield f"Answers were sampled (temperature {temperature:g}): another seed gives other scores."


def _of(name: str, score: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[str]:
    entry = (numbers["settings"]["job"].get("benchmarks") or {}).get(name, {})
    yield from (f"{name}: {said}." for said in (*_of_entry(name, score, entry), *_of_answers(score)))


def _of_entry(name: str, score: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    if limit := entry.get("limit"):
        is_relative = score["metric"] in ("CIDEr-D",)
        more = ", and CIDEr-D over fewer images is another measure" if is_relative else ""
        yield f"only the first {count(limit)} rows were asked (limit){more}"
    if entry.get("rule"):
        default = BENCHMARKS[entry.get("dataset") or name].rule
        if entry["rule"] != default:
            yield f"scored by {entry['rule']}, where published scores go by {default}"
    if entry.get("prompt"):
        yield "asked in a wording of the run's own, with which no published score was reached"


def _of_answers(score: Mapping[str, Any]) -> Iterator[str]:
    if fault := score.get("fault"):
        yield f"not scored, though its answers are there: {fault}; `triptych report` tries again"
    total = score["n"] + score["unscored"]
    if score["missing"]:
        yield f"{count(score['missing'])} of {count(total + score['missing'])} rows are missing{_counted(score)}"
    if not total:
        return
    for number, most, what in (
        (score["truncated"], MANY_UNREAD, "of the answers were cut off at the token limit"),
        (_unread(score), MANY_UNREAD, "of the answers could not be read, and count as wrong"),
        (score["failed"], MANY_FAILED, "of the rows failed, and count as wrong"),
    ):
        if number / total > most:
            yield f"{percent(number / total)} {what}"
    if said := TOKENIZERS.get(score.get("tokenizer") or ""):
        yield said


def _counted(score: Mapping[str, Any]) -> str:
    if score.get("score_over_all") is None:
        return ""
    return f"; with them counted as wrong the score is {percent(score['score_over_all'])}"


def _unread(score: Mapping[str, Any]) -> int:
    statuses = score.get("statuses", {})
    return int(statuses.get("failed", 0) + statuses.get("refused", 0) + statuses.get("empty", 0))
