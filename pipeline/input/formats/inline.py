"""Read images that stand in a cell of text, as base64 or in a `data:` address; it knows letters, not rows."""

import ast
import base64
import binascii
from urllib.parse import unquote_to_bytes

# Shorter cells are names or ids: no image is so small. VLMEvalKit e8e78f0, vlmeval/dataset/image_base.py, draws the
# line at the same place.
SHORTEST = 64
# Longer ones are neither paths nor addresses.
LONGEST_NAME = 8192
# What files begin with that are images. Of WebP, whose size stands between, the rest follows eight bytes later.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF", b"BM")


class NotBase64(ValueError):
    """A text begins as an image in base64 does, and does not go on so."""


def inlined(text: str) -> bytes | None:
    """Return the image that a text holds as base64; None if it is none.

    Raises:
        NotBase64: It begins as one and is broken.
    """
    if len(text) <= SHORTEST or not _begins_as_image(text):
        return None
    try:
        return _decoded(text.encode())
    except ValueError as error:
        if len(text) <= LONGEST_NAME and "." in text:  # letters and slashes of a path may begin like an image, too
            return None
        raise NotBase64(f"{text[:32]!r}... begins as an image in base64, but {error}") from error


def is_data_address(text: str) -> bool:
    """Say whether an address holds what it names."""
    return text[:5].lower() == "data:"


def in_data_address(address: str) -> bytes:
    """Return what a `data:` address holds, read as browsers do (Fetch standard, "data: URL processor").

    Raises:
        NotBase64: It has no comma, or what it calls base64 is none.
    """
    head, comma, body = address.partition(",")
    if not comma:
        raise NotBase64(f"found {head[:80]!r}, expected data:image/...;base64,...")
    data = unquote_to_bytes(body)
    if not head.replace(" ", "").lower().endswith(";base64"):
        return data
    try:
        return _decoded(data)
    except ValueError as error:
        raise NotBase64(f"found {head[:80]!r} with what is not base64: {error}") from error


def listed(text: str) -> list[str] | None:
    """Return the texts of a cell that holds a Python list of them, as cells of several images do; None if it does not.

    It is read as a literal and never run.
    """
    if not (text.startswith(("['", '["')) and text.endswith(("']", '"]'))):
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


def _decoded(text: bytes) -> bytes:
    """Decode base64 with or without padding, in one line or several."""
    letters = b"".join(text.split()).rstrip(b"=")
    return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)


def _begins_as_image(text: str) -> bool:
    try:
        head = base64.b64decode("".join(text[:80].split())[:SHORTEST], validate=True)
    except (ValueError, binascii.Error):
        return False
    return head.startswith(SIGNATURES) and (not head.startswith(b"RIFF") or head[8:12] == b"WEBP")
