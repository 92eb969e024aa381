"""Propose which of an input's columns is meant where one that we have a word for is missing.

People call them by many names; what is proposed is for them to type, and nothing is guessed. It knows names and a few
values, and opens nothing.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.input.columns import IMAGE_PATH, TAKEN
from pipeline.input.formats.inline import SIGNATURES, NotBase64, inlined, is_data_address
from pipeline.input.formats.parquet import image_type_fault
from pipeline.input.formats.rows import IMAGE_EXTENSIONS

# What else our words are called, the likeliest first; without underscores, hyphens and capitals.
IMAGES = (
    *("images", "img", "imgs", "imageurl", "imageurls", "imgurl", "imagepath", "imagepaths", "imgpath", "imagefile"),
    *("imagename", "filename", "filenames", "filepath", "imagebytes", "jpg", "jpeg", "png", "webp", "picture"),
    *("photo", "pic", "url", "urls", "uri", "link", "path", "file", "src", "bytes"),
)
NAMES: Mapping[str, Sequence[str]] = {
    "image": IMAGES,
    "question": ("questions", "query", "prompt", "instruction", "text", "input", "problem", "ask", "q"),
    "answers": ("answer", "gold", "goldanswer", "groundtruth", "label", "target", "reference", "references", "a"),
    "text": ("texts", "prompt", "caption", "description", "query", "instruction", "content", "sentence"),
}
_FILE = re.compile(rf"\.(?:{'|'.join(IMAGE_EXTENSIONS)})(?:[?#\"'\]}}].*)?$", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"(?:https?|s3|gs|az|hf|file)://\S+$", re.IGNORECASE)


def own_name(column: str) -> str:
    """Return what the input itself calls one of its columns: in our tables some make room for ours."""
    own = column.removeprefix("input_")
    return own if own in (*TAKEN, IMAGE_PATH) else column


def setting_for(word: str, rows: pa.Table) -> str | None:
    """Return the setting to type by which one of an input's columns becomes one that we have a word for.

    Args:
        word: `image`, `question`, `answers` or `text`; for others there is none.
        rows: The input's other columns, with some rows or none.

    Returns:
        Such as `read.columns.image=img`, ready for a shell; None where no column is likely.
    """
    found = [field.name for field in rows.schema if _is_possible(word, field.type)]
    ranks = {name: _rank(word, name, rows) for name in found}
    likely = sorted((rank, found.index(name), name) for name, rank in ranks.items() if rank is not None)
    return shlex.quote(f"read.columns.{word}={own_name(likely[0][2])}") if likely else None


def _rank(word: str, column: str, rows: pa.Table) -> tuple[int, int] | None:
    """Return a column's place among those that may be meant; None if it is none of them."""
    names = NAMES.get(word, ())
    plain = re.sub(r"[\W_]", "", own_name(column)).lower()
    by_name = names.index(plain) if plain in names else None
    if word == "image":  # what values say counts before names: a `file` may be anything
        if any(map(_looks_like_image, rows.column(column).to_pylist())):
            return 0, len(names) if by_name is None else by_name
        return None if by_name is None else (1, by_name)
    return None if by_name is None else (0, by_name)


def _is_possible(word: str, kind: pa.DataType) -> bool:
    if word == "image":
        return image_type_fault(kind) is None
    is_text = pa.types.is_string(kind)
    return is_text or (word == "answers" and (pa.types.is_integer(kind) or kind == pa.list_(pa.string())))


def _looks_like_image(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_looks_like_image, value))
    if isinstance(value, dict):
        return any(map(_looks_like_image, value.values()))
    if isinstance(value, bytes):
        return value.startswith(SIGNATURES)
    if not isinstance(value, str):
        return False
    try:
        return (
            bool(_FILE.search(value) or _ADDRESS.match(value)) or is_data_address(value) or inlined(value) is not None
        )
    except NotBase64:
        return False
