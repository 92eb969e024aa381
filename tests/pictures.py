"""Files of small pictures."""

import io

from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the file of an image."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def plain(color: str | tuple[int, int, int], size: tuple[int, int], kind: str = "PNG") -> bytes:
    """Return the file of an image of one color."""
    return encoded(Image.new("RGB", size, color), kind)
