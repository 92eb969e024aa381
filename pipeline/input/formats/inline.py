"""Tell images that stand in a cell of text, as base64, from paths and ids; it knows letters, not rows."""

import ast
import base64
import binascii

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
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        if len(text) <= LONGEST_NAME and "." in text:  # letters and slashes of a path may begin like an image, too
            return None
        raise NotBase64(f"{text[:32]!r}... begins as an image in base64, but {error}") from error


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


def _begins_as_image(text: str) -> bool:
    try:
        head = base64.b64decode("".join(text[:80].split())[:SHORTEST], validate=True)
    except (ValueError, binascii.Error):
        return False
    return head.startswith(SIGNATURES) and (not head.startswith(b"RIFF") or head[8:12] == b"WEBP")
