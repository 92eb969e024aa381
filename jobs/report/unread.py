"""The rows whose answers no rule could read, or that have none: kept for a person to look through."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.part_files import OpenPart

STATUSES = ("failed", "refused", "empty", "truncated")
# The columns by which these rows are found, and what is kept of them.
UNREAD_COLUMNS = ("benchmark", "key", "parse_status")
TEXTS = ("prompt", "question", "response", "answers")
MOST_ROWS = 1000
MOST_FREQUENT = 10
# Of each text, half of them from its beginning and half from its end: that is where an answer would stand.
MOST_CHARACTERS = 4000
SHOWN_CHARACTERS = 120


class Unread:
    """The first MOST_ROWS such rows of each benchmark."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(self, part: OpenPart, rows: pa.Table) -> None:
        """Look through the UNREAD_COLUMNS of the next part; texts are read only if some of its rows are kept."""
        indices = pc.indices_nonzero(pc.is_in(rows["parse_status"], pa.array(STATUSES)).combine_chunks())
        unread = rows.select(UNREAD_COLUMNS).take(indices).to_pylist()
        kept = [(index, row) for index, row in zip(indices.to_pylist(), unread, strict=True) if self._has_room(row)]
        if not kept:
            return
        texts = part.read(TEXTS).take(pa.array([index for index, _ in kept], pa.int64())).to_pylist()
        for (_, row), text in zip(kept, texts, strict=True):
            self._rows[row["benchmark"]].append(_entry(row, text))

    def _has_room(self, row: Mapping[str, Any]) -> bool:
        self._counts[row["benchmark"]] += 1
        return self._counts[row["benchmark"]] <= MOST_ROWS

    def summary(self, name: str) -> dict[str, Any]:
        """Return `rows`, how many of them are `listed`, and the `most` frequent answers, of one benchmark."""
        listed = self._rows.get(name, [])
        by_answer: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in listed:
            by_answer[row["status"], _ending(row["response"] or "")].append(row)
        frequent = sorted(by_answer.items(), key=lambda item: -len(item[1]))[:MOST_FREQUENT]
        most = [
            {"status": status, "ending": ending, "count": len(rows), "key": rows[0]["key"], "asked": rows[0]["asked"]}
            for (status, ending), rows in frequent
        ]
        return {"rows": self._counts[name], "listed": len(listed), "most": most}

    def lines(self) -> bytes:
        """Return the rows as JSON lines."""
        rows = [{name: row[name] for name in row if name != "asked"} for rows in self._rows.values() for row in rows]
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _entry(row: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": row["benchmark"],
        "key": row["key"],
        "status": row["parse_status"],
        "prompt": _cut(text["prompt"]),
        "response": _cut(text["response"]),
        "gold": text["answers"],
        "asked": _ending(text["question"] or ""),
    }


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]} […{len(text) - MOST_CHARACTERS:,} characters…] {text[-half:]}"


def _ending(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARACTERS else f"…{words[-SHOWN_CHARACTERS:]}"
