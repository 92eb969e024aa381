"""The columns in which a judge's verdicts stand beside the rules' own scores. It knows rows, no questions to judges."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation.answers import Piece
from jobs.evaluation.judge import Judge, Ruling, rule_on
from pipeline import Store

JUDGED = pa.schema(
    [
        ("judge", pa.string()),
        ("judge_prompt_hash", pa.string()),
        ("judge_verdict", pa.string()),
        ("judged_score", pa.float64()),
    ]
)
LOOKED_AT = ("rule", "question", "response_clean", "parse_status", "answers", "choices", "facts")


def judged(pieces: Callable[[], Iterator[Piece]], judge: Judge, output: Store) -> Iterator[Piece]:
    """Put a judge's verdicts beside scored rows; a row that nobody was asked about keeps its score as `judged_score`.

    Raises:
        JudgeError: The judge has failed; nothing has been given yet.
    """
    # All of them at once, before anything is written: a judge may take minutes to be ready.
    asked = [row for piece in pieces() for row in _failed(piece.rows).to_pylist()]
    rulings = iter(rule_on(asked, judge, output))
    for piece in pieces():
        is_failed = _is_failed(piece.rows).to_pylist()
        yield Piece(piece.path, _with(piece.rows, [next(rulings) if failed else None for failed in is_failed]))


def _is_failed(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(rows["parse_status"], "failed"), False)


def _failed(rows: pa.Table) -> pa.Table:
    return rows.select(LOOKED_AT).filter(_is_failed(rows))


def _with(rows: pa.Table, rulings: Sequence[Ruling | None]) -> pa.Table:
    scores = [
        score if ruling is None else ruling.score
        for score, ruling in zip(rows["score"].to_pylist(), rulings, strict=True)
    ]
    columns = [
        [ruling and ruling.judge for ruling in rulings],
        [ruling and ruling.prompt_hash for ruling in rulings],
        [ruling and ruling.verdict for ruling in rulings],
        scores,
    ]
    for field, column in zip(JUDGED, columns, strict=True):
        rows = rows.append_column(field, pa.array(column, field.type))
    return rows
