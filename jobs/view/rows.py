"""All rows of an output: a few bytes of each in memory, the rest read in place when it is shown.

It knows columns and files, and nothing of pages.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.report.job import ReportedJob
from jobs.report.part_files import LEFT_OUT, OpenPart, open_parts
from jobs.report.results import look_for_parts
from pipeline import Store

Numbers = npt.NDArray[np.int64]

VERDICTS = ("right", "wrong", "failed", "unknown")
SORTS = ("order", "least likely", "most likely", "shortest", "longest")
# A list to choose from; rarer groups are found by their text.
MOST_GROUPS = 200


@dataclass(frozen=True)
class Wanted:
    """Which rows are wanted, and in what order.

    Attributes:
        verdict: One of VERDICTS; empty for all.
        group: A group as `Rows.groups` names it; empty for all.
        text: What one of a row's texts holds, in capitals or not; empty for all.
        sort: One of SORTS. Likelihood is the mean log-probability of a row's tokens, length their number.
    """

    verdict: str = ""
    group: str = ""
    text: str = ""
    sort: str = "order"


@dataclass(frozen=True)
class _File:
    path: str
    start: int
    num_rows: int


class Rows:
    """The rows that were committed when this was made, by their number in the results.

    Attributes:
        groups: Names of groups that rows belong to, with the number of rows; the most frequent ones.
    """

    def __init__(self, store: Store, job: ReportedJob) -> None:
        """Read the columns that the index needs, part by part.

        Raises:
            ReportError: There is no run, or it has committed nothing yet.
            StorageError: It cannot be read.
        """
        standing, _ = look_for_parts(store)
        self._store = store
        self._files: list[_File] = []
        groups: Counter[str] = Counter()
        verdicts, lengths, likelihoods = [], [], []
        start = 0
        for part in open_parts(store, standing.files):
            rows = part.read({"key", "error", "output_tokens", "benchmark", *job.summary_columns(part.schema.names)})
            verdicts.append(_verdicts(rows, job.verdicts(rows)))
            lengths.append(_filled(rows["output_tokens"], -1))
            likelihoods.append(_mean_log_probabilities(part))
            groups.update(name for _, name in _groups_of(part.read({"benchmark", "groups"})))
            self._files.append(_File(part.path, start, rows.num_rows))
            start += rows.num_rows
        self.groups = dict(groups.most_common(MOST_GROUPS))
        self._verdicts = np.concatenate(verdicts)
        self._lengths = np.concatenate(lengths)
        self._likelihoods = np.concatenate(likelihoods)

    def __len__(self) -> int:
        return len(self._verdicts)

    def counts(self) -> dict[str, int]:
        """Return how many rows have each of VERDICTS."""
        counted = np.bincount(self._verdicts, minlength=len(VERDICTS))
        return dict(zip(VERDICTS, counted.tolist(), strict=True))

    def find(self, wanted: Wanted) -> Numbers:
        """Return the numbers of the rows that are wanted, in their order; texts and groups are looked for in the files.

        Rows without tokens come last where likelihood or length sorts.
        """
        found = np.ones(len(self), bool)
        if wanted.verdict:
            found &= self._verdicts == VERDICTS.index(wanted.verdict)
        if wanted.group:
            found &= self._in_files(lambda part: _in_group(part, wanted.group))
        if wanted.text:
            found &= self._in_files(lambda part: _with_text(part, wanted.text))
        numbers = np.flatnonzero(found)
        if wanted.sort == "order":
            return numbers
        values = (self._likelihoods if "likely" in wanted.sort else self._lengths.astype(float))[numbers]
        is_missing = np.isnan(values) | (self._lengths[numbers] <= 0)
        falling = wanted.sort in ("most likely", "longest")
        return numbers[np.lexsort((numbers, -values if falling else values, is_missing))]

    def read(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Read some rows, all columns but tokens and pictures; only the row groups that hold them are opened."""
        rows: dict[int, dict[str, Any]] = {}
        for file in self._files:
            inside = sorted(number - file.start for number in numbers if 0 <= number - file.start < file.num_rows)
            if inside:
                with self._store.open(file.path) as opened:
                    rows |= {file.start + index: row for index, row in _read(pq.ParquetFile(opened), inside)}
        return [rows[number] for number in numbers]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows of each file by its path, in the order of the results."""
        return {file.path: file.num_rows for file in self._files}

    def verdict(self, number: int) -> str:
        """Return which of VERDICTS a row has."""
        return VERDICTS[self._verdicts[number]]

    def likelihood(self, number: int) -> float | None:
        """Return the mean log-probability of a row's tokens; None where it has none."""
        value = float(self._likelihoods[number])
        return None if np.isnan(value) else value

    def _in_files(self, holds: Any) -> npt.NDArray[np.bool_]:
        found = []
        for file in self._files:
            with self._store.open(file.path) as opened:
                found.append(holds(OpenPart(file.path, pq.ParquetFile(opened))))
        return np.concatenate(found)


def _read(part: pq.ParquetFile, indices: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    columns = [name for name in part.schema_arrow.names if name not in LEFT_OUT]
    start = 0
    for group in range(part.num_row_groups):
        stop = start + part.metadata.row_group(group).num_rows
        if inside := [index for index in indices if start <= index < stop]:
            rows = part.read_row_group(group, columns=columns).take([index - start for index in inside])
            yield from zip(inside, rows.to_pylist(), strict=True)
        start = stop


def _verdicts(rows: pa.Table, verdicts: Sequence[bool | None]) -> npt.NDArray[np.int8]:
    places = {True: 0, False: 1, None: 3}
    found = np.array([places[verdict] for verdict in verdicts], np.int8)
    found[rows["error"].is_valid().to_numpy()] = VERDICTS.index("failed")
    return found


def _filled(column: pa.ChunkedArray, value: int) -> npt.NDArray[np.int32]:
    return np.asarray(pc.fill_null(column.cast(pa.int32()), value).to_numpy())


def _mean_log_probabilities(part: OpenPart) -> npt.NDArray[np.float32]:
    means = [np.empty(0, np.float32)]
    if "output_logprobs" in part.schema.names:
        for batch in part.file.iter_batches(columns=["output_logprobs"]):
            column = batch.column(0)
            parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
            sums = np.bincount(parents, column.flatten().to_numpy(zero_copy_only=False), batch.num_rows)
            counts = np.bincount(parents, minlength=batch.num_rows)
            means.append(np.where(counts, sums / np.maximum(counts, 1), np.nan).astype(np.float32))
        return np.concatenate(means)
    return np.full(part.file.metadata.num_rows, np.nan, np.float32)


def _groups_of(rows: pa.Table) -> Iterator[tuple[int, str]]:
    """Yield for each row its number and each of its groups."""
    for name in rows.column_names:
        for number, value in enumerate(rows[name].to_pylist()):
            if isinstance(value, str):
                yield number, f"{name}: {value}"
            for group in value if isinstance(value, list) else ():
                if isinstance(group, Mapping) and set(group) == {"name", "value"}:
                    yield number, f"{group['name']}: {group['value']}"


def _in_group(part: OpenPart, group: str) -> npt.NDArray[np.bool_]:
    found = np.zeros(part.file.metadata.num_rows, bool)
    found[[number for number, name in _groups_of(part.read({"benchmark", "groups"})) if name == group]] = True
    return found


def _with_text(part: OpenPart, text: str) -> npt.NDArray[np.bool_]:
    found = np.zeros(part.file.metadata.num_rows, bool)
    types = {field.name: field.type for field in part.schema}
    names = {name for name, kind in types.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)}
    rows = part.read(names - {*LEFT_OUT, "model", "row_hash", "image_hash"})
    for column in rows.columns:
        found |= pc.fill_null(pc.match_substring(column, text, ignore_case=True), False).to_numpy()
    return found
