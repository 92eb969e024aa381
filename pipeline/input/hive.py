"""Columns that folders' names hold, as Hive writes them: `lang=en/part-0.parquet`."""

import logging
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

log = logging.getLogger(__name__)

FOLDER = re.compile(r"([A-Za-z_][\w.-]*)=(.*)")
NULL = "__HIVE_DEFAULT_PARTITION__"
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def values_of(path: str) -> dict[str, str | None]:
    """Return what the folders of a shard's path say, column by column."""
    folders = (match for folder in path.split("/")[:-1] if (match := FOLDER.fullmatch(folder)))
    return {match[1]: None if match[2] == NULL else unquote(match[2]) for match in folders}


def hive_columns(paths: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the columns that all paths have, and their types: whole numbers where all values are, else text."""
    found = [values_of(path) for path in paths]
    if not found or not all(found) or len({tuple(values) for values in found}) > 1:
        return {}
    return {name: pa.int64() if all(_is_whole(values[name]) for values in found) else pa.string() for name in found[0]}


def tell_differing(path: str, name: str, said: str | None, column: Sequence[Any]) -> None:
    """Say that a file's own column holds another value than its folder's name does."""
    other = next((value for value in column if value is not None and str(value) != said), None)
    if other is not None:
        log.warning("%s: the folder says %s=%s, the file's own column %r; the file's is kept", path, name, said, other)


def _is_whole(value: str | None) -> bool:
    return value is None or WHOLE.fullmatch(value) is not None
