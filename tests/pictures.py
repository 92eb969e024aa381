"""Files of small pictures."""

import hashlib
import io
from collections.abc import Sequence

from PIL import Image

from models.types import Pixels


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the file of an image."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def plain(color: str | tuple[int, int, int], size: tuple[int, int], kind: str = "PNG") -> bytes:
    """Return the file of an image of one color."""
    return encoded(Image.new("RGB", size, color), kind)


def name_of(tiles: Sequence[Pixels], layout: int = 0) -> str:
    """Name an image that has no file, by what a model gets of it."""
    parts = [part for tile in tiles for part in (str(tile.shape).encode(), tile.tobytes())]
    return hashlib.sha256(b" ".join([str(layout).encode(), *parts])).hexdigest()
