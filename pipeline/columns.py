"""Say which columns reading gives: ours first, then the input's others under names that do not clash with ours.

It knows names and types, not values.
"""

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

from pipeline.formats.fields import kept_type, raw_type
from pipeline.formats.parquet import image_type_fault
from pipeline.formats.rows import IMAGE_EXTENSIONS, ReadError
from pipeline.formats.samples import is_image, wanted_image
from pipeline.shards import FILE_FORMATS, Format

Word = Literal["key", "image", "text", "question", "answers"]
# What becomes columns of ours; the others are names for the input's.
OF_OURS: tuple[Word, ...] = ("key", "image")
ERROR = pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])
OUR_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
        ("images", pa.list_(pa.large_binary())),
    ]
)
# An input column of such a name is kept as `input_<name>`.
TAKEN = (*OUR_COLUMNS.names, "image", "error")


def input_schema(
    fields: Mapping[str, pa.DataType],
    columns: Mapping[Word, str],
    format: Format,
    where: str,
    extensions: frozenset[str] = frozenset(),
    *,
    is_raw: bool = False,
) -> pa.Schema:
    """Return the columns of every table of a source; `is_raw` leaves the input's own their types.

    Raises:
        ReadError: A column that was named does not exist, or one of ours cannot be made from what is there.
    """
    _check_named(fields, columns, format, where, extensions)
    image = source_column("image", columns)
    fault = image_type_fault(fields[image]) if format == "parquet" and image in fields else None
    if fault:
        raise ReadError(f"{where}: image column {image!r} holds {fields[image]}, expected {fault}")
    kept = [(output_name(name, columns, format), kind) for name, kind in fields.items()]
    others = [
        pa.field(name, raw_type(kind) if is_raw else kept_type(name, kind, where))
        for name, kind in kept
        if name is not None
    ]
    names = [field.name for field in others]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ReadError(f"{where}: several input columns would be called {', '.join(twice)}")
    return pa.schema([*OUR_COLUMNS, *others, pa.field("error", ERROR)])


def output_name(column: str, columns: Mapping[Word, str], format: Format) -> str | None:
    """Return what an input column is called in our tables; None for key and image, which become columns of ours."""
    if format != "webdataset" and column in (source_column("key", columns), source_column("image", columns)):
        return None
    for word, name in columns.items():
        if name == column and word not in OF_OURS:
            return word
    # What begins so is ours between two steps (pipeline/rows.py).
    is_taken = column in TAKEN or column in {str(word) for word in columns} or column.startswith(("input.", "job."))
    return f"input_{column}" if is_taken else column


def columns_read(columns: Mapping[Word, str], *, is_raw: bool) -> Mapping[Word, str]:
    """Return what `read.columns` says of a source: in a raw one, other columns than its key and images are its own."""
    return {word: name for word, name in columns.items() if word in OF_OURS} if is_raw else columns


def source_column(word: Word, columns: Mapping[Word, str]) -> str:
    """Return the input column that stands for one of our words."""
    return columns.get(word, word)


def _check_named(
    fields: Mapping[str, pa.DataType],
    columns: Mapping[Word, str],
    format: Format,
    where: str,
    extensions: frozenset[str],
) -> None:
    for word, name in columns.items():
        if format in FILE_FORMATS:
            raise ReadError(f"{where}: read.columns.{word} names {name!r}, but a folder of {format} has no columns")
        if format == "webdataset" and word == "key":
            raise ReadError(f"{where}: read.columns.key names {name!r}, but a tar's keys are its members' base names")
        if format == "webdataset" and word == "image":
            if not any(is_image(extension, wanted_image(name)) for extension in extensions):
                images = [extension for extension in extensions if extension.split(".")[-1] in IMAGE_EXTENSIONS]
                found = ", ".join(sorted(images)) or "no image members"
                raise ReadError(f"{where}: read.columns.image names extension {name!r}; found {found}")
        elif name not in fields:
            listed = ", ".join(fields) or "none"
            raise ReadError(f"{where}: read.columns.{word} names {name!r}, but the columns are: {listed}")
