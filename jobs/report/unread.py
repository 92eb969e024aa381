"""The rows whose answers no rule could read, or that have none: kept for a person to look through.

It knows the columns of answers, not the rules.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.parts import OpenPart

STATUSES = ("failed", "refused", "empty", "truncated")
# Columns of the parts by which they are found, and what is kept of them.
FOUND_BY = ("benchmark", "key", "parse_status")
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
        """Look through the next part; texts are read from it only if some of them are kept.

        Args:
            part: Where the rows stand.
            rows: Their columns FOUND_BY.
        """
        places = pc.indices_nonzero(pc.is_in(rows["parse_status"], pa.array(STATUSES)).combine_chunks())
        found = rows.select(FOUND_BY).take(places).to_pylist()
        wanted = [(place, row) for place, row in zip(places.to_pylist(), found, strict=True) if self._has_room(row)]
        if not wanted:
            return
        texts = part.read(TEXTS).take(pa.array([place for place, _ in wanted], pa.int64())).to_pylist()
        for (_, row), text in zip(wanted, texts, strict=True):
            self._rows[row["benchmark"]].append(_kept(row, text))

    def _has_room(self, row: Mapping[str, Any]) -> bool:
        self._counts[row["benchmark"]] += 1
        return self._counts[row["benchmark"]] <= MOST_ROWS

    def summed(self, name: str) -> dict[str, Any]:
        """Return `rows`, how many of them are `listed`, and what stands there most often, of one benchmark."""
        listed = self._rows.get(name, [])
        frequent: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in listed:
            frequent[row["status"], _ending(row["response"] or "")].append(row)
        ordered = sorted(frequent.items(), key=lambda item: -len(item[1]))[:MOST_FREQUENT]
        most = [
            {"status": status, "ending": ending, "count": len(rows), "key": rows[0]["key"], "asked": rows[0]["asked"]}
            for (status, ending), rows in ordered
        ]
        return {"rows": self._counts[name], "listed": len(listed), "most": most}

    def lines(self) -> bytes:
        """Return the rows as JSON lines."""
        rows = [{name: row[name] for name in row if name != "asked"} for rows in self._rows.values() for row in rows]
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _kept(row: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
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
