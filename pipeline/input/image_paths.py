"""Say what a row's images are called where they lie: paths, addresses, members of an archive; never their bytes.

The column `image_path` joins answers with files. Where rows may have several images it holds lists, else texts. An
input whose images have no names has no such column.
"""

import json
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.input.columns import IMAGE_PATH, Layout
from pipeline.input.formats.inline import LONGEST_NAME, NotBase64, inlined, is_data_address, listed
from pipeline.input.formats.parquet import OF_VALUES
from pipeline.input.formats.rows import RawRow
from pipeline.input.formats.samples import is_image, is_numbered
from pipeline.input.formats.shapes import names_file
from pipeline.input.formats.table import FORMATS

# What names a file in a dict, in the order in which it is looked for.
NAMES = ("path", "url", "image_url")
ONE, SEVERAL = pa.string(), pa.list_(pa.string())


def type_of_paths(
    fields: Mapping[str, pa.DataType], layout: Layout, extensions: Collection[str] = ()
) -> pa.DataType | None:
    """Return the type of the column `image_path`; None where images have no names of their own.

    A raw source's rows are the job's to keep. A video that rows name has its column already, and so has an id by which
    an image is looked up.

    Args:
        fields: The input's columns and their types.
        layout: What the settings say of them.
        extensions: Of an archive's members.
    """
    traits = FORMATS[layout.format]
    if layout.is_raw or layout.video or layout.join:
        return None
    if traits.is_file:
        return ONE
    if traits.has_members:
        pictures = [extension for extension in extensions if is_image(extension, layout.wanted_image)]
        return (SEVERAL if any(map(is_numbered, pictures)) else ONE) if pictures else None
    names = layout.images
    if layout.shape == "imagefolder" and "image" not in layout.columns and "file_name" not in fields:
        names = tuple(name for name in fields if names_file(name))
    kinds = [fields[name] for name in names if name in fields]
    if not any(map(_may_name, kinds)):
        return None
    return SEVERAL if len(kinds) > 1 or any(map(_has_several, kinds)) else ONE


def paths_of(rows: Sequence[RawRow], layout: Layout, shard: str) -> dict[str, pa.ChunkedArray]:
    """Return the column `image_path` of some rows whose images are not yet fetched; null where none has a name.

    Args:
        rows: As their format gives them.
        layout: Of their unit.
        shard: Where they stand; the paths of an ImageFolder count from its folder, and stay below the input's.
    """
    if layout.image_path is None:
        return {}
    folder = posixpath.dirname(shard) if layout.shape == "imagefolder" else ""
    values = [[_written(posixpath.join(folder, name)) for name in _names_of(row, layout)] for row in rows]
    if layout.image_path == SEVERAL:
        return {IMAGE_PATH: pa.chunked_array([pa.array([names or None for names in values], SEVERAL)])}
    # No row that the plan has looked at had several.
    texts = [json.dumps(names, ensure_ascii=False) if len(names) > 1 else next(iter(names), None) for names in values]
    return {IMAGE_PATH: pa.chunked_array([pa.array(texts, ONE)])}


def _names_of(row: RawRow, layout: Layout) -> Sequence[str]:
    traits = FORMATS[layout.format]
    if traits.has_members:
        return row.members
    if traits.is_file:
        return [row.key] if row.key else []  # of a unit that could not even be opened nothing is known
    return list(_names_in(row.image))


def _names_in(image: Any) -> Iterator[str]:
    """Yield the paths and addresses in what a row gives as its images."""
    if isinstance(image, list):
        for item in image:
            yield from _names_in(item)
    elif isinstance(image, dict):  # the hub's, or as chat messages have it
        yield from _names_in(next((image[name] for name in NAMES if image.get(name)), None))
    elif isinstance(image, str):
        yield from filter(_is_name, listed(image) or [image])


def _is_name(text: str) -> bool:
    if not 0 < len(text) <= LONGEST_NAME or is_data_address(text):
        return False
    try:
        return inlined(text) is None
    except NotBase64:
        return False


def _may_name(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _may_name(kind.storage_type)
    if any(is_of_values(kind) for is_of_values in OF_VALUES):
        return _may_name(kind.value_type)
    return any(field.name in NAMES for field in kind) if pa.types.is_struct(kind) else "binary" not in str(kind)


def _has_several(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_several(kind.storage_type)
    return "list" in str(kind) if not pa.types.is_dictionary(kind) else _has_several(kind.value_type)


def _written(name: str) -> str:
    """Return a name as a column of texts can hold it: JSON allows halves of characters."""
    return name.encode("utf-8", "backslashreplace").decode()
