"""Hold one Parquet file of an output, a part or a committed unit, against the units that it should hold.

Every page is unpacked once, one row group at a time. It knows columns and units, and neither models nor Ray.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.units import Unit
from pipeline.state.retries import row_ids_of
from pipeline.state.rewrite import RowId, spans
from pipeline.steps.tars import samples_in_tar

# Kinds of damage that are known elsewhere: none of the rows belongs there.
FOREIGN = "foreign rows"
NARROW = ("key", "shard", "index", "model", "output_tokens", "error")


class Damaged(Exception):
    """A file is not what it should be.

    Attributes:
        kind: What is wrong with it, in a word or two.
        found: What is there.
        expected: What should be there.
        stranger: A row in it that belongs elsewhere.
    """

    def __init__(self, kind: str, found: str, expected: str, stranger: RowId | None = None) -> None:
        super().__init__(f"{kind}: found {found}, expected {expected}")
        self.kind, self.found, self.expected, self.stranger = kind, found, expected, stranger


@dataclass(frozen=True)
class Chosen:
    """A row of the input that is computed again.

    Attributes:
        unit: What it belongs to.
        number: Its place among the unit's rows.
        rows: What stands there of it, a line for each of its answers.
        path: The file that they stand in.
    """

    unit: Unit
    number: int
    rows: pa.Table
    path: str


class Sample:
    """Some rows with answers, each as likely as any other; the same ones for the same seed and files."""

    def __init__(self, size: int, seed: int) -> None:
        """Begin with none.

        Args:
            size: How many rows; of fewer, all.
            seed: Of the choice.
        """
        self._size = size
        self._random = np.random.default_rng(seed)
        self._kept: list[tuple[float, Chosen]] = []

    @property
    def rows(self) -> list[Chosen]:
        """The rows, in the order of the input."""
        return sorted((chosen for _, chosen in self._kept), key=lambda chosen: (chosen.unit.seq, chosen.number))

    def draw(self, have_answers: Sequence[bool]) -> dict[int, float]:
        """Return which rows of a file may be among them, with the number that decides it: the smallest stay."""
        numbers = self._random.random(len(have_answers))
        numbers[~np.array(have_answers, bool)] = np.inf
        limit = self._kept[-1][0] if len(self._kept) == self._size and self._kept else np.inf
        first = np.argsort(numbers, kind="stable")[: self._size].tolist()
        return {place: float(numbers[place]) for place in first if numbers[place] < limit}

    def add(self, drawn: Iterable[tuple[float, Chosen]]) -> None:
        """Keep those whose numbers are small enough."""
        # A unit that was merged while it was looked at is seen again in its part.
        known = {(chosen.unit.seq, chosen.number) for _, chosen in self._kept}
        new = [(number, one) for number, one in drawn if (one.unit.seq, one.number) not in known]
        self._kept = sorted([*self._kept, *new], key=lambda pair: pair[0])[: self._size]


@dataclass
class Counted:
    """What sound files hold.

    Attributes:
        rows: Rows of the input.
        answers: Rows of the files: a row that asked for several pictures has several.
        failed: Those with an error.
        keys: Of each data set, 8 bytes of every key: ten million take 80 MB.
    """

    rows: int = 0
    answers: int = 0
    failed: int = 0
    keys: dict[str, list[np.ndarray[Any, np.dtype[np.int64]]]] = field(default_factory=dict)

    def add(self, narrow: pa.Table, found: Sequence[range], units: Sequence[Unit]) -> None:
        """Count the rows of a file, whose lines are `found`, and which belong to these units."""
        self.rows += len(found)
        self.answers += narrow.num_rows
        self.failed += narrow.num_rows - narrow["error"].null_count
        keys, end = narrow["key"].to_pylist(), 0
        for unit in units:
            mine, end = found[end : end + unit.num_rows], end + unit.num_rows
            hashes = np.fromiter((hash(keys[span.start]) for span in mine), np.int64)
            self.keys.setdefault(unit.source, []).append(hashes)

    def extend(self, other: "Counted") -> None:
        """Add what others hold."""
        self.rows += other.rows
        self.answers += other.answers
        self.failed += other.failed
        for source, hashes in other.keys.items():
            self.keys.setdefault(source, []).extend(hashes)

    @property
    def doubled(self) -> Mapping[str, int]:
        """How many rows of each data set have a key that an earlier one has; those without any are left out."""
        hashes = {source: np.concatenate(found) for source, found in self.keys.items()}
        return Counter({name: n for name, keys in hashes.items() if (n := len(keys) - len(np.unique(keys)))})


def row_ids(units: Iterable[Unit]) -> list[RowId]:
    """Return shard and index of every row of some units."""
    found: list[RowId] = []
    for unit in units:
        places = row_ids_of(unit)
        found += [places[number] for number in unit.only] if unit.only else places
    return found


def check_file(
    file: BinaryIO,
    path: str,
    units: Sequence[Unit],
    schema: pa.Schema,
    model: str,
    *,
    counted: Counted,
    sample: Sample,
    tar_text: str = "",
) -> dict[int, tuple[str, bool]]:
    """Look at all of a file; count its rows and choose some of them.

    Args:
        file: The open file.
        path: Where it stands below the output.
        units: What it should hold, in order.
        schema: The columns that it should have.
        model: What its column `model` should say.
        counted: Its rows are added to these.
        sample: Some of its rows may come to be among these.
        tar_text: The column of the texts in the tar beside it; empty if there is none.

    Returns:
        What its tar should hold, by the rows' places: a text, and whether images.

    Raises:
        Damaged: It is another.
    """
    try:
        parquet = pq.ParquetFile(file)
        _check_schema(parquet.schema_arrow, schema)
        narrow = parquet.read(columns=list(NARROW))
        found = _check_rows(narrow, row_ids(units), model)
        have_answers = pc.is_null(narrow["error"]).to_pylist()
        drawn = sample.draw([any(have_answers[line] for line in span) for span in found])
        lines = {line: place for place in drawn for line in found[place]}
        kept, samples = _read_all(parquet, lines, tar_text)
    except (pa.ArrowException, OSError) as error:
        raise Damaged("unreadable", f"a file that cannot be read ({str(error)[:200]})", "whole Parquet") from error
    owners = [(unit, number) for unit in units for number in range(unit.num_rows)]
    sample.add((number, Chosen(*owners[place], pa.concat_tables(kept[place]), path)) for place, number in drawn.items())
    counted.add(narrow, found, units)
    return samples


def _check_schema(found: pa.Schema, expected: pa.Schema) -> None:
    """Compare columns as Arrow does: what Parquet calls the items of a list is of no account."""
    if found.equals(expected):
        return
    lacking = [name for name in expected.names if name not in found.names]
    beside = [name for name in found.names if name not in expected.names]
    common = [name for name in expected.names if name in found.names]
    others = [name for name in common if not found.field(name).type.equals(expected.field(name).type)]
    if lacking or beside:
        said = [f"without {', '.join(lacking)}"] if lacking else []
        said += [f"with {', '.join(beside)}"] if beside else []
        raise Damaged("other columns", f"columns {' and '.join(said)}", "the columns of this run's job")
    if others:
        types = ", ".join(f"{name} as {found.field(name).type}" for name in others)
        wanted = ", ".join(f"{name} as {expected.field(name).type}" for name in others)
        raise Damaged("other columns", types, wanted)
    raise Damaged("other columns", f"the order {', '.join(found.names)}", ", ".join(expected.names))


def _check_rows(narrow: pa.Table, expected: Sequence[RowId], model: str) -> list[range]:
    """See that each row of the input is there once, in order, and answered by the run's model; return their lines."""
    try:
        found = spans(narrow)
    except ValueError as error:
        raise Damaged("doubled rows", str(error), "each row once, in the order of the input") from error
    if list(found) != expected:
        raise _misfit(list(found), expected)
    if narrow["key"].null_count:
        raise Damaged("no keys", f"{narrow['key'].null_count} rows without a key", "a key in each")
    if others := sorted(map(str, set(pc.unique(narrow["model"]).to_pylist()) - {model})):
        raise Damaged("another model", f"answers of {', '.join(others)}", f"those of {model}")
    return list(found.values())


def _misfit(found: Sequence[RowId], expected: Sequence[RowId]) -> Damaged:
    ours, theirs = set(found), set(expected)
    lacking = [place for place in expected if place not in ours]
    beside = [place for place in found if place not in theirs]
    wanted = f"the {len(expected):,} rows from {_name(expected[0])} to {_name(expected[-1])}"
    if beside and len(lacking) == len(expected):
        return Damaged(FOREIGN, f"{len(found):,} rows of others, first {_name(beside[0])}", wanted, beside[0])
    if not lacking and not beside:
        return Damaged("other order", f"its {len(found):,} rows in another order", wanted)
    said = [f"{len(found):,} rows"]
    said += [f"{len(lacking):,} of its own are missing, first {_name(lacking[0])}"] if lacking else []
    said += [f"{len(beside):,} belong elsewhere, first {_name(beside[0])}"] if beside else []
    return Damaged("other rows", ", ".join(said), wanted, beside[0] if beside else None)


def _name(row: RowId) -> str:
    return f"{row[0]}#{row[1]}"


def _read_all(
    parquet: pq.ParquetFile, lines: Mapping[int, int], tar_text: str
) -> tuple[dict[int, list[pa.Table]], dict[int, tuple[str, bool]]]:
    """Unpack every page; return the lines that are asked for, by what they are asked for as, and a tar's samples."""
    kept: dict[int, list[pa.Table]] = {}
    samples: dict[int, tuple[str, bool]] = {}
    start = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.read_row_group(group)
        written = pc.sum(pc.list_value_length(rows["output_token_ids"])).as_py() or 0
        if written != (pc.sum(rows["output_tokens"]).as_py() or 0):
            said = pc.sum(rows["output_tokens"]).as_py() or 0
            raise Damaged("other tokens", f"{written:,} tokens in rows that count {said:,}", "as many as they count")
        for line in range(start, start + rows.num_rows):
            if line in lines:  # copied: a slice would hold the whole group
                kept.setdefault(lines[line], []).append(rows.take(pa.array([line - start])))
        if tar_text:
            samples |= {start + place: sample for place, sample in samples_in_tar(rows, tar_text).items()}
        start += rows.num_rows
    return kept, samples
