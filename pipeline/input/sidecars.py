"""Read what stands beside pictures that are rows: a text (`a.txt`), fields (`a.json`), and the name of their folder.

Which picture has what beside it was found when the run was planned (folders.py).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from pipeline.input.fetch import NUM_FETCHERS, failure_of_all_rows, fault_of
from pipeline.input.folders import label_of, path_of_sidecar
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.rows import Fault, RawRow, RowError, Shape, parse_object
from pipeline.input.shards import Shards
from pipeline.storage.store import StorageError, Store

# Texts and fields have no reason to be larger; each is held.
LIMIT_BYTES = 4 * 2**20
# Of so many pictures the fields beside them are read when a run is planned: each takes a request.
SAMPLED = 256


def sidecar_paths(paths: Sequence[str], sidecars: Sequence[str]) -> list[str]:
    """Return the files beside some pictures, each once."""
    beside = zip(paths, sidecars, strict=False)  # none where no picture has any
    found = [path_of_sidecar(path, one) for path, all in beside for one in all.split(",") if one]
    return list(dict.fromkeys(found))


def fields_beside(shards: Shards, limit: int | None) -> dict[str, pa.DataType]:
    """Return the columns that pictures get from what stands beside them, and from their folders."""
    fields: dict[str, pa.DataType] = {}
    extensions = {one for all in set(shards.sidecars[:limit]) for one in all.split(",")}
    if shards.shape == "classes":
        fields["label"] = pa.string()
    if "json" in extensions:
        images = [entry.path for entry in shards.entries[:limit]]
        sampled = [path for path, all in zip(images, shards.sidecars, strict=False) if "json" in all.split(",")]
        step = max(1, len(sampled) // SAMPLED)
        rows = [RawRow(key=path) for path in sampled[::step][:SAMPLED]]
        with ThreadPoolExecutor(NUM_FETCHERS) as pool:
            list(pool.map(lambda row: _read(row, "json", shards.store), rows))
        for row in rows:
            note_types(fields, row.values)
    if extensions & {"txt", "caption"}:
        fields["text"] = pa.string()
    return fields


def read_beside(rows: Sequence[RawRow], shape: Shape, sidecars: Sequence[str], store: Store) -> None:
    """Give rows that are pictures the values of what stands beside them; what cannot be read is the row's fault.

    Args:
        rows: Each with its picture's path as its key.
        shape: Of the unit.
        sidecars: Of the unit.
        store: Where they lie.

    Raises:
        StorageError: No row could have it, here and now.
    """
    if shape == "classes":
        for row in rows:
            row.values["label"] = label_of(row.key)
    if sidecars:
        with ThreadPoolExecutor(NUM_FETCHERS) as pool:
            list(pool.map(lambda pair: _read(pair[0], pair[1], store), zip(rows, sidecars, strict=True)))


def _read(row: RawRow, extensions: str, store: Store) -> None:
    for extension in ("json", "txt", "caption"):  # a text of its own counts before a field `text`
        if extension not in extensions.split(","):
            continue
        try:
            row.values.update(_values(path_of_sidecar(row.key, extension), extension, store))
        except RowError as error:
            row.fault = row.fault or error.fault
        except StorageError as error:
            if failure := failure_of_all_rows(error, store, store):
                raise failure from error
            row.fault = row.fault or Fault(*fault_of(error))


def _values(path: str, extension: str, store: Store) -> Mapping[str, Any]:
    data = store.read(path, 0, LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise RowError("TooLarge", f"{path} has more than the {LIMIT_BYTES} bytes that are read beside a picture")
    if extension == "json":
        return parse_object(data, path)
    try:
        return {"text": data.decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        raise RowError("NotUtf8", f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
