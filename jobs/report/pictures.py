"""The drawn pictures of a run, read back from its parts a few at a time: a part may hold more than memory does."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from pipeline import Store

COLUMN = "image"


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a run's results stand.

    Attributes:
        store: The output.
        parts: The rows of each part by its path, in the order of the results.
    """

    store: Store
    parts: Mapping[str, int]

    def read(self, numbers: Sequence[int]) -> dict[int, bytes | None]:
        """Return the pictures of some rows by the rows' numbers in the results; of failed ones None.

        Only the row groups in which they lie are read, one after the other.

        Raises:
            StorageError: A part cannot be read.
        """
        found: dict[int, bytes | None] = {}
        first = 0
        for path, num_rows in self.parts.items():
            wanted = [number - first for number in numbers if first <= number < first + num_rows]
            if wanted:
                found |= {first + place: picture for place, picture in self._of_part(path, wanted).items()}
            first += num_rows
        return found

    def _of_part(self, path: str, places: Sequence[int]) -> dict[int, bytes | None]:
        found: dict[int, bytes | None] = {}
        with self.store.open(path) as file:
            part = pq.ParquetFile(file)
            for group, (start, inside) in _by_group(part, places).items():
                column = part.read_row_group(group, columns=[COLUMN]).column(COLUMN)
                found |= {place: column[place - start].as_py() for place in inside}
        return found


def _by_group(part: pq.ParquetFile, places: Sequence[int]) -> dict[int, tuple[int, list[int]]]:
    """Say in which row groups places lie: by the group's number its first row and the places inside."""
    starts, start = [], 0
    for group in range(part.num_row_groups):
        starts.append(start)
        start += part.metadata.row_group(group).num_rows
    by_group: dict[int, list[int]] = defaultdict(list)
    for place in places:
        by_group[max(group for group, start in enumerate(starts) if start <= place)].append(place)
    return {group: (starts[group], inside) for group, inside in by_group.items()}
