"""What rows are beyond their format: whose layout they have, and which of its fields are our key and image.

It knows fields and names, not files.
"""

import posixpath
from collections.abc import Mapping
from typing import Any

from pipeline.input.formats.rows import ReadError, Shape

# Which of their fields are the key and the images, where settings name none.
DEFAULTS: Mapping[Shape, Mapping[str, str]] = {
    "imagefolder": {"key": "file_name", "image": "file_name"},
    "coco": {"key": "id", "image": "file_name"},
}


def names_file(column: str) -> bool:
    """Say whether a column of an ImageFolder's metadata names image files."""
    return column == "file_name" or column.endswith(("_file_name", "_file_names"))


def check_imagefolder(fields: Mapping[str, Any], where: str) -> None:
    """Refuse metadata that names no image files.

    Raises:
        ReadError: No column is called as those of an ImageFolder are.
    """
    if not any(map(names_file, fields)):
        raise ReadError(
            f"{where}: expected the column `file_name` or `*_file_name` of an ImageFolder beside images, found "
            f"{', '.join(fields) or 'none'}; set read.format=images for the images alone, or make this file read.uri"
        )


def file_names(values: Mapping[str, Any]) -> Any:
    """Return what a row of an ImageFolder's metadata names: `file_name`, else all that `*_file_name` name, in order."""
    if "file_name" in values:
        return values["file_name"]
    return [value for name, value in values.items() if names_file(name)]


def placed_key(key: Any, shape: Shape, shard: str) -> Any:
    """Return an ImageFolder's key as the path below the input's folder: each folder's metadata counts from there."""
    return posixpath.join(posixpath.dirname(shard), key) if shape == "imagefolder" and isinstance(key, str) else key


def described(shape: Shape, fields: Mapping[str, Any]) -> str:
    """Say in words what rows of a shape are."""
    if shape == "coco":
        more = ", ".join(f"`{name}`" for name in ("captions", "categories") if name in fields)
        return f"COCO annotations: a row an image, with its {more or 'fields'}; key is its `id`, image its `file_name`"
    whose = "LLaVA's conversations" if "conversations" in fields else "chat messages"
    asked = "the user's last turn is asked after all turns before it, which are told"
    return f"{whose}: {asked}; an answer behind it is in `answers`"


def only_shape(shapes: Mapping[str, Shape]) -> Shape:
    """Return the one shape of the rows of some files, by their paths; files with conversations and files without agree.

    Raises:
        ReadError: Some files are COCO's, and others are not.
    """
    others = [path for path, shape in shapes.items() if shape != "coco"]
    if len(others) == len(shapes):
        return "chat" if "chat" in shapes.values() else ""
    if others:
        raise ReadError(f"some files are COCO annotations, and others are not, such as {others[0]}; name one file")
    return "coco"
