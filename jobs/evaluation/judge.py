"""Ask a judge about answers that no rule could read, and keep its replies, so that nothing is asked twice.

A judge is anything that answers prompts, such as one of our own models; judge_prompts.py has what it is asked. Its
verdicts are columns of their own: a rule's own score is never changed.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation.answers import Piece
from jobs.evaluation.judge_prompts import JudgePrompt, judge_prompt
from jobs.report.results import ReportError
from jobs.scoring.rule import Gold
from models.types import Request, Sampling
from pipeline import StorageSettings, Store, local_copy, weights_digest

log = logging.getLogger(__name__)

# The folder of kept replies in an output.
CACHE = "_judge"
# Prompts that a judge gets at once; its replies are kept after each such batch.
BATCH = 1000
# An option's letter takes one or two tokens, an extracted answer a few more.
MAX_NEW_TOKENS = 64
DIGEST_DIGITS = 16
# What a judge is asked with, and what is kept of its reply.
ROW_COLUMNS = ("rule", "question", "response_clean", "parse_status", "answers", "choices", "facts")
JUDGE_COLUMNS = pa.schema(
    [
        ("judge", pa.string()),
        ("judge_prompt_hash", pa.string()),
        ("judge_verdict", pa.string()),
        ("judged_score", pa.float64()),
    ]
)


class JudgeError(ReportError):
    """A judge has failed; without it, there are no scores that include its verdicts."""


class Judge(Protocol):
    """Reads answers that no rule could read."""

    @property
    def name(self) -> str:
        """What it is and with which weights; every verdict has it, and replies are kept by it."""

    def __call__(self, prompts: Sequence[str]) -> Sequence[str]:
        """Reply to each prompt, in their order; equal prompts must get equal replies."""


@dataclass(frozen=True)
class ModelJudge:
    """One of our own models as a judge, in this process; it is loaded anew for each batch and freed after it.

    Attributes:
        folder: The local checkpoint.
        name: The folder's name and a digest of its weights.
    """

    folder: str
    name: str

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Reply to each prompt with the likeliest tokens.

        Raises:
            BadRequest: A prompt does not fit the model, or it takes no chat.
            CheckpointError: The checkpoint is not one we can run.
        """
        from models import ask  # only now, as it loads torch

        sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
        requests = [
            Request(key=str(number), messages=[{"role": "user", "content": prompt}], sampling=sampling)
            for number, prompt in enumerate(prompts)
        ]
        return [answer.text for answer in ask(self.folder, requests)]


def model_judge(path: str) -> ModelJudge:
    """Make a judge of a checkpoint: a local folder, an fsspec URL or a hub name.

    Raises:
        StorageError: There is no model.
    """
    folder = local_copy(path, StorageSettings(), is_looking=True)
    digest = weights_digest([folder]).partition(":")[2]
    return ModelJudge(folder, f"{Path(folder).name}@{digest[:DIGEST_DIGITS]}")


@dataclass(frozen=True)
class Ruling:
    """The outcome of asking a judge about one row.

    Attributes:
        judge: The judge's name.
        prompt_hash: SHA-256 of the prompt.
        verdict: The row's answer as the judge reads it; None if the reply gives none.
        score: That answer's score; 0 if the reply gives none, None without gold answers.
    """

    judge: str
    prompt_hash: str
    verdict: str | None
    score: float | None


def add_verdicts(pieces: Callable[[], Iterator[Piece]], judge: Judge, output: Store) -> Iterator[Piece]:
    """Add JUDGE_COLUMNS to scored rows; a row that the judge was not asked about has its own score as `judged_score`.

    Raises:
        JudgeError: The judge has failed; nothing has been given yet.
    """
    # All at once, before anything is written: a judge may need minutes to start.
    rows_to_ask = [row for piece in pieces() for row in _failed_rows(piece.rows)]
    rulings = iter(ask_judge(rows_to_ask, judge, output))
    for piece in pieces():
        by_row = [next(rulings) if failed else None for failed in _is_failed(piece.rows).to_pylist()]
        scores = [
            score if ruling is None else ruling.score
            for score, ruling in zip(piece.rows["score"].to_pylist(), by_row, strict=True)
        ]
        columns = [
            *([getattr(ruling, name, None) for ruling in by_row] for name in ("judge", "prompt_hash", "verdict")),
            scores,
        ]
        rows = piece.rows
        for field, column in zip(JUDGE_COLUMNS, columns, strict=True):
            rows = rows.append_column(field, pa.array(column, field.type))
        yield Piece(piece.path, rows)


def ask_judge(rows: Sequence[Mapping[str, Any]], judge: Judge, output: Store) -> list[Ruling | None]:
    """Ask a judge about the rows that need one; the others get None.

    Args:
        rows: Scored rows, with the columns ROW_COLUMNS.
        judge: The judge.
        output: Where its replies are kept: the folder of the results.

    Raises:
        JudgeError: The judge has failed. Its earlier replies are kept, and are not asked for again.
        StorageError: Its replies cannot be read or kept.
    """
    by_row = [_prompt_of(row) for row in rows]
    prompts = list(dict.fromkeys(prompt.text for prompt in by_row if prompt is not None))
    replies = _kept_replies(output, judge.name)
    new = [prompt for prompt in prompts if _hash(prompt) not in replies]
    log.info("judge %s: %d prompts, %d of them answered before", judge.name, len(prompts), len(prompts) - len(new))
    for start in range(0, len(new), BATCH):
        replies |= _new_replies(judge, new[start : start + BATCH], output, done=start, total=len(new))
    return [
        None if prompt is None else _ruling(prompt, judge.name, replies, has_gold=bool(row["answers"]))
        for prompt, row in zip(by_row, rows, strict=True)
    ]


def _is_failed(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(rows["parse_status"], "failed"), False)


def _failed_rows(rows: pa.Table) -> list[dict[str, Any]]:
    failed: list[dict[str, Any]] = rows.select(ROW_COLUMNS).filter(_is_failed(rows)).to_pylist()
    return failed


def _prompt_of(row: Mapping[str, Any]) -> JudgePrompt | None:
    # An answer that was cut off, or is empty, has nothing in it for anybody to find.
    if row["parse_status"] != "failed":
        return None
    gold = Gold(tuple(row["answers"] or ()), tuple(row["choices"] or ()), json.loads(row["facts"] or "{}"))
    return judge_prompt(row["rule"], row["question"], row["response_clean"], gold)


def _new_replies(judge: Judge, prompts: Sequence[str], output: Store, *, done: int, total: int) -> dict[str, str]:
    """Ask a judge, keep its replies, and return them by the hashes of their prompts."""
    try:
        replies = list(judge(prompts))
    except Exception as error:
        kept = f"{done:,} of {total:,} prompts were answered before and are kept" if done else "none was answered"
        raise JudgeError(f"judge {judge.name}: {type(error).__name__}: {error}; {kept}") from error
    if len(replies) != len(prompts):
        counts = f"found {len(replies):,} replies to {len(prompts):,} prompts"
        raise JudgeError(f"judge {judge.name}: {counts}, expected one to each")
    by_hash = {_hash(prompt): reply for prompt, reply in zip(prompts, replies, strict=True)}
    lines = [
        json.dumps({"judge": judge.name, "prompt_hash": prompt_hash, "prompt": prompt, "reply": reply})
        for prompt, (prompt_hash, reply) in zip(prompts, by_hash.items(), strict=True)
    ]
    data = "\n".join([*lines, ""]).encode()
    # Named by its content: several processes that keep replies here do not overwrite each other's.
    output.publish(f"{CACHE}/{hashlib.sha256(data).hexdigest()[:32]}.jsonl", data)
    return by_hash


def _kept_replies(output: Store, judge: str) -> dict[str, str]:
    """Return the replies of a judge that an output has, by the hashes of their prompts."""
    lines = [
        json.loads(line)
        for entry in output.list(CACHE)
        if entry.path.endswith(".jsonl")
        for line in output.read(entry.path).splitlines()
    ]
    return {line["prompt_hash"]: line["reply"] for line in lines if line["judge"] == judge}


def _ruling(prompt: JudgePrompt, judge: str, replies: Mapping[str, str], *, has_gold: bool) -> Ruling:
    prompt_hash = _hash(prompt.text)
    verdict = prompt.read(replies[prompt_hash])
    if verdict is None:
        return Ruling(judge, prompt_hash, None, 0.0 if has_gold else None)
    return Ruling(judge, prompt_hash, *verdict)


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
