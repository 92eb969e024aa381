"""Put a part's pictures into a tar that training loaders read: WebDataset samples of image, text and numbers.

It knows the columns of a job that draws, and neither the job nor storage.
"""

import io
import json
import math
import tarfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

TARS = "_webdataset"
# What the rows of a job that draws have; `keep`, where they have it too, says whether a check let them pass.
PICTURE_COLUMNS = ("image", "image_format", "caption_in")
# A loader wants pictures, texts and numbers; tokens stand in the part, and what failed is not here.
LEFT_OUT = ("output_token_ids", "output_logprobs", "error")
EXTENSIONS = {"jpeg": "jpg"}  # the one that every loader knows


def tar_path(number: int) -> str:
    """Return where a part's tar stands below the output."""
    return f"{TARS}/part-{number:05d}.tar"


def has_pictures(schema: pa.Schema) -> bool:
    """Say whether rows of these columns can be put into a tar."""
    return set(PICTURE_COLUMNS) <= set(schema.names)


def picture_tar(number: int, rows: pa.Table) -> bytes:
    """Return a part's well and kept pictures as the bytes of a tar; equal rows give equal bytes.

    A sample is called by the part's number and its row's place in the part: `00003-000017.png`, `.txt` (the text as
    given) and `.json` (the row's other columns, as far as they hold no bytes). No two tars share a name, and without a
    dot in it loaders find the extension.
    """
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for place, row in _chosen(rows):
            for extension, data in _sample(row).items():
                # The other fields of a header have fixed values: no time, no owner, mode 0644.
                info = tarfile.TarInfo(f"{number:05d}-{place:06d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def _chosen(rows: pa.Table) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the rows that belong into the tar and their places; one at a time, because their pictures are large."""
    chosen = rows["error"].is_null()
    for name in PICTURE_COLUMNS:
        chosen = pc.and_(chosen, rows[name].is_valid())
    if "keep" in rows.column_names:
        chosen = pc.and_(chosen, pc.fill_null(rows["keep"], True))
    wanted = [field.name for field in rows.schema if field.name == "image" or not _has_bytes(field.type)]
    columns = rows.select([name for name in wanted if name not in LEFT_OUT])
    for place in pc.indices_nonzero(chosen).to_pylist():
        yield place, columns.slice(place, 1).to_pylist()[0]


def _sample(row: dict[str, Any]) -> dict[str, bytes]:
    """Return one sample's files by their extensions."""
    others = {name: _plain(value) for name, value in row.items() if name not in PICTURE_COLUMNS}
    return {
        EXTENSIONS.get(row["image_format"], row["image_format"]): row["image"],
        "txt": row["caption_in"].encode(),
        "json": json.dumps(others, ensure_ascii=False, allow_nan=False, default=str).encode(),
    }


def _has_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    if kind.num_fields:
        return any(_has_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return "binary" in str(kind)  # there are four kinds of it


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: it has no word for numbers that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
