"""Ask a judge about answers that no rule could read, and keep what it says, so that nothing is asked twice.

A judge is anything that answers prompts; judge_model.py makes one of a checkpoint. What it is asked stands in
questions_for_judges.py. A rule's own score is never touched.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.evaluation.questions_for_judges import Matter, matter_of
from jobs.report.results import ReportError
from jobs.scoring.rule import Gold
from pipeline import Store

log = logging.getLogger(__name__)

CACHE = "_judge"
# Prompts put to a judge at once; after each such batch its replies are kept.
BATCH = 1000


class JudgeError(ReportError):
    """A judge has failed; without it, the scores that it was asked for are not there."""


class Judge(Protocol):
    """Whoever reads answers that no rule could read."""

    @property
    def name(self) -> str:
        """What it is and with which weights; it stands with every verdict, and replies are kept by it."""
        ...

    def __call__(self, prompts: Sequence[str]) -> Sequence[str]:
        """Reply to each prompt, in their order, and alike every time."""
        ...


@dataclass(frozen=True)
class Ruling:
    """What has come of asking about one row.

    Attributes:
        judge: Who was asked.
        prompt_hash: SHA-256 of what was asked.
        verdict: What was answered, as the judge reads it; None if its reply says nothing.
        score: That answer's score; 0 if the judge says nothing, None without gold answers.
    """

    judge: str
    prompt_hash: str
    verdict: str | None
    score: float | None


def rule_on(rows: Sequence[Mapping[str, Any]], judge: Judge, output: Store) -> list[Ruling | None]:
    """Ask a judge about those rows that need one; None stands for the others.

    Args:
        rows: Scored rows, with `rule, question, response_clean, parse_status, answers, choices, facts`.
        judge: Who is asked.
        output: Where its replies are kept: the folder of the results.

    Raises:
        JudgeError: The judge has failed. What it has said before is kept, and is not asked again.
        StorageError: Its replies cannot be read or kept.
    """
    matters = [_matter(row) for row in rows]
    prompts = list(dict.fromkeys(matter.prompt for matter in matters if matter is not None))
    replies = _kept(output, judge.name)
    asked = [prompt for prompt in prompts if _hash(prompt) not in replies]
    log.info("judge %s: %d prompts, %d of them answered before", judge.name, len(prompts), len(prompts) - len(asked))
    for start in range(0, len(asked), BATCH):
        replies |= _ask(judge, asked[start : start + BATCH], output, done=start, total=len(asked))
    return [
        None if matter is None else _ruling(matter, judge.name, replies, has_gold=bool(row["answers"]))
        for matter, row in zip(matters, rows, strict=True)
    ]


def _matter(row: Mapping[str, Any]) -> Matter | None:
    # An answer that was cut off, or is empty, has nothing in it for anybody to find.
    if row["parse_status"] != "failed":
        return None
    gold = Gold(tuple(row["answers"] or ()), tuple(row["choices"] or ()), json.loads(row["facts"] or "{}"))
    return matter_of(row["rule"], row["question"], row["response_clean"], gold)


def _ask(judge: Judge, prompts: Sequence[str], output: Store, *, done: int, total: int) -> dict[str, str]:
    """Put some prompts to a judge and keep its replies."""
    try:
        replies = list(judge(prompts))
    except Exception as error:
        kept = f"{done:,} of {total:,} prompts were answered before, which is kept" if done else "none was answered"
        raise JudgeError(f"judge {judge.name}: {type(error).__name__}: {error}; {kept}") from error
    if len(replies) != len(prompts):
        counts = f"found {len(replies):,} replies to {len(prompts):,} prompts"
        raise JudgeError(f"judge {judge.name}: {counts}, expected one to each")
    lines = [
        json.dumps({"judge": judge.name, "prompt_hash": _hash(prompt), "prompt": prompt, "reply": reply})
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    data = "\n".join([*lines, ""]).encode()
    # Named by its content: several who keep replies here do not get into each other's way.
    output.publish(f"{CACHE}/{hashlib.sha256(data).hexdigest()[:32]}.jsonl", data)
    return {_hash(prompt): reply for prompt, reply in zip(prompts, replies, strict=True)}


def _kept(output: Store, judge: str) -> dict[str, str]:
    """Return the replies of a judge that stand in an output, by the hashes of their prompts."""
    lines = [
        json.loads(line)
        for entry in output.list(CACHE)
        if entry.path.endswith(".jsonl")
        for line in output.read(entry.path).splitlines()
    ]
    return {line["prompt_hash"]: line["reply"] for line in lines if line["judge"] == judge}


def _ruling(matter: Matter, judge: str, replies: Mapping[str, str], *, has_gold: bool) -> Ruling:
    prompt_hash = _hash(matter.prompt)
    found = matter.read(replies[prompt_hash])
    if found is None:
        return Ruling(judge, prompt_hash, None, 0.0 if has_gold else None)
    return Ruling(judge, prompt_hash, *found)


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
