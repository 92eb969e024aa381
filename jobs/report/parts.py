"""The finished parts of a run, opened one after the other, and of each only the columns that somebody asks for.

It knows Parquet and where parts stand, not what their columns mean.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.report import pictures
from pipeline import Store, ledger

# They are as large as all answers together, and nothing in a report needs them.
LEFT_OUT = ("output_token_ids", "output_logprobs", pictures.COLUMN)


@dataclass(frozen=True)
class OpenPart:
    """A part while it is open: where it stands, and its file."""

    path: str
    file: pq.ParquetFile

    @property
    def schema(self) -> pa.Schema:
        """All columns of the part; what was counted while it was made stands beside them."""
        return self.file.schema_arrow

    def read(self, names: Container[str]) -> pa.Table:
        """Read those of some columns that the part has."""
        columns = [name for name in self.schema.names if name in names]
        return self.file.read(columns=columns).replace_schema_metadata()

    def read_shown(self) -> pa.Table:
        """Read all columns but tokens and pictures."""
        return self.read([name for name in self.schema.names if name not in LEFT_OUT])


def open_parts(store: Store) -> Iterator[OpenPart]:
    """Open the finished parts in their order, each while it is looked at.

    Raises:
        StorageError: A part cannot be read.
    """
    for path in ledger.part_paths(store):
        with store.open(path) as file:
            yield OpenPart(path, pq.ParquetFile(file))
