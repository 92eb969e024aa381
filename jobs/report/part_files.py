"""The results of a run, in files: opened one after the other, and only the columns and pictures read that are needed.

They are finished parts, and of others the units that are committed already; both are called parts here.

It knows Parquet and where parts are, not what their columns mean.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import IMAGES, ResultFile, Store

PICTURE = "image"
# They are as large as all answers together, and nothing in a report needs them.
LEFT_OUT = ("output_token_ids", "output_logprobs", PICTURE, IMAGES.name)


@dataclass(frozen=True)
class OpenPart:
    """A part while it is open: its path, and its file."""

    path: str
    file: pq.ParquetFile

    @property
    def schema(self) -> pa.Schema:
        """All columns of the part; its metadata hold what was counted while it was made."""
        return self.file.schema_arrow

    def read(self, names: Container[str]) -> pa.Table:
        """Read those of some columns that the part has."""
        columns = [name for name in self.schema.names if name in names]
        return self.file.read(columns=columns).replace_schema_metadata()

    def read_without_tokens(self) -> pa.Table:
        """Read all columns but tokens and pictures."""
        return self.read([name for name in self.schema.names if name not in LEFT_OUT])


def open_parts(store: Store, files: Iterable[ResultFile]) -> Iterator[OpenPart]:
    """Open the files that hold the results in their order, each until the next one is asked for.

    Raises:
        StorageError: A part cannot be read.
    """
    for result in files:
        with store.open(result.path) as file:
            yield OpenPart(result.path, pq.ParquetFile(file))


@dataclass(frozen=True)
class Pictures:
    """The drawn pictures of a run, read a few at a time: a part may be larger than memory.

    Attributes:
        store: The output.
        parts: The number of rows of each part by its path, in the order of the results.
    """

    store: Store
    parts: Mapping[str, int]

    def read(self, numbers: Sequence[int]) -> dict[int, bytes | None]:
        """Return the pictures of some rows by the rows' numbers in the results; None for failed ones.

        Only the row groups that hold them are read, one after the other.

        Raises:
            StorageError: A part cannot be read.
        """
        pictures: dict[int, bytes | None] = {}
        start = 0
        for path, num_rows in self.parts.items():
            wanted = [number - start for number in numbers if start <= number < start + num_rows]
            if wanted:
                with self.store.open(path) as file:
                    found = _read_pictures(pq.ParquetFile(file), wanted)
                pictures |= {start + index: picture for index, picture in found.items()}
            start += num_rows
        return pictures


def _read_pictures(part: pq.ParquetFile, indices: Sequence[int]) -> dict[int, bytes | None]:
    pictures: dict[int, bytes | None] = {}
    start = 0
    for group in range(part.num_row_groups):
        stop = start + part.metadata.row_group(group).num_rows
        if inside := [index for index in indices if start <= index < stop]:
            column = part.read_row_group(group, columns=[PICTURE]).column(PICTURE)
            pictures |= {index: column[index - start].as_py() for index in inside}
        start = stop
    return pictures
