"""Turn compressed image bytes into upright RGB pictures and back, and name what families make of them.

Everything a file can do to a model is settled here, once and for all families: orientation, transparency,
palettes, bit depths, colour spaces, frames, size. What a family does with the picture is not known here.
"""

import hashlib
import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from models.types import BadImage, PictureFormat, Pixels

# Only formats that Pillow decodes by itself: EPS would start Ghostscript on dataset bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO")

# Pillow's own threshold (a quarter gibibyte of RGB), made an error here instead of a warning.
LIMIT_PIXELS = 89_478_485


def decode_image(data: bytes) -> Image.Image:
    """Decode one picture to mode RGB.

    EXIF orientation is applied (the reference processors do so only when they open the file themselves),
    transparency is composited on white as `transformers` 5 does, 16-bit samples keep their high byte, and
    of an animation the first frame is taken.

    Raises:
        BadImage: Not an image, cut short, of a refused format, or more than LIMIT_PIXELS pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata that does no harm to pixels; only its bomb warning matters.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > LIMIT_PIXELS:  # Pillow's warning may be off, its limit another
                raise BadImage(f"refused {image.width} x {image.height} pixels: the limit is {LIMIT_PIXELS}")
            image.load()
            return _on_white(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"refused a decompression bomb: {error}; the limit is {LIMIT_PIXELS} pixels") from error
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type there is
        raise BadImage(f"cannot decode {_described(data)}: {error or type(error).__name__}") from error


def encode_image(pixels: Pixels, picture: PictureFormat) -> bytes:
    """Encode a picture; equal pixels give equal bytes.

    Args:
        pixels: uint8 (height, width, 3).
        picture: The format.
    """
    sink = io.BytesIO()
    quality = {} if picture.name == "png" else {"quality": picture.quality}
    Image.fromarray(pixels).save(sink, picture.name.upper(), **quality)
    return sink.getvalue()


def image_name(tiles: Sequence[Pixels], layout: int) -> str:
    """Name what a model sees of an image: equal names, equal features.

    Args:
        tiles: Everything that the model gets of it; so the image settings are part of the name.
        layout: The family's number for how the tiles lie.
    """
    digest = hashlib.sha256(f"{layout} {[tile.shape for tile in tiles]}".encode())
    for tile in tiles:
        digest.update(np.ascontiguousarray(tile).data)
    return digest.hexdigest()


def image_major(names: Sequence[Sequence[str]]) -> list[int]:
    """Return an order of rows in which those that share an image stand together, behind the first of them.

    Args:
        names: The names of each row's images. Rows without an image keep to the place of their neighbours.
    """
    leaders: list[int] = []
    leader_of: dict[str, int] = {}
    for place, row in enumerate(names):
        leader = min((leader_of[name] for name in row if name in leader_of), default=place)
        leader_of |= {name: leader for name in row if name not in leader_of}
        leaders.append(leader)
    return sorted(range(len(leaders)), key=leaders.__getitem__)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise BadImage("cannot decode float pixels: their range is not defined; expected 8 or 16 bits a sample")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 0xFFFF:
        raise BadImage(f"cannot decode samples from {samples.min()} to {samples.max()}: expected 16 bits, 0 to 65535")
    return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")


def _described(data: bytes) -> str:
    return "0 bytes" if not data else f"{len(data)} bytes that start with {data[:12]!r}"
