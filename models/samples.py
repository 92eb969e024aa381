"""What a file says of its samples and Pillow leaves to its reader: depth, which end is white, the clear colour.

Pillow passes 16-bit gray on as it lies in the file, and of 16-bit colour the high bytes alone. So the clear colour of a
PNG is compared with the file's own samples, before they are cut to 8 bits.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from models.types import BadImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# TIFF 6.0 gives these numbers to its fields and values.
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION, SAMPLE_FORMAT = 258, 262, 284, 339
WHITE_IS_ZERO, SEPARATE_PLANES, UNSIGNED = 0, 2, 1


@dataclass(frozen=True)
class Samples:
    """The samples of one picture, as its file describes them.

    Attributes:
        bits: Of a sample of gray that Pillow does not cut to 8 bits.
        white_is_zero: Whether such gray counts from white to black.
        clear: The transparent sample or colour of a 16-bit PNG.
    """

    bits: int = 16
    white_is_zero: bool = False
    clear: int | tuple[int, int, int] | None = None


def read_samples(image: ImageFile.ImageFile) -> Samples:
    """Read what the header of an opened picture says, before its pixels are decoded.

    Scales the clear gray of a PNG of 2 or 4 bits in place, since Pillow scales the samples alone.

    Raises:
        BadImage: Samples without a defined range, or in an order that Pillow does not follow.
    """
    if image.mode == "F":
        raise BadImage("cannot decode float pixels: their range is not defined; expected 8 or 16 bits a sample")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_samples(image)
    if image.format == "PNG" and image.info.get("transparency") is not None:
        unpacking = str(image.tile[0].args)
        if unpacking in ("I;16B", "RGB;16B"):
            return Samples(clear=image.info.pop("transparency"))
        if unpacking in ("L;2", "L;4"):
            image.info["transparency"] *= 255 // (2 ** int(unpacking[2]) - 1)
    return Samples()


def gray_of(image: Image.Image, samples: Samples) -> npt.NDArray[np.uint8]:
    """Return the high 8 bits of gray that Pillow left as it was, white where it is clear: uint8 (height, width)."""
    values = np.asarray(image)
    white = 2**samples.bits - 1
    gray = (white - values if samples.white_is_zero else values) >> (samples.bits - 8)
    return np.where(values == samples.clear, 255, gray).astype(np.uint8)


def low_bytes_of(image: ImageFile.ImageFile) -> Image.Image:
    """Decode the low bytes of a 16-bit RGB PNG that has just been opened: mode RGB.

    Pillow keeps the first byte of each sample, or the second where it takes them for little-endian.
    """
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


def is_clear(high: Image.Image, low: Image.Image, clear: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Tell which pixels of a 16-bit RGB picture have the clear colour: (height, width)."""
    wanted_high, wanted_low = [value >> 8 for value in clear], [value & 0xFF for value in clear]
    matches = (np.asarray(high) == wanted_high) & (np.asarray(low) == wanted_low)
    return np.asarray(matches.all(axis=2), dtype=np.bool_)


def without_metadata(data: bytes) -> bytes | None:
    """Return a PNG with only the chunks that make its pixels, or None for what is no PNG.

    Texts, profiles and EXIF are left out: one that is damaged or unpacks to megabytes stops Pillow, though the pixels
    are sound. Critical chunks have a capital letter (PNG specification, 5.4); `tRNS` holds transparency.
    """
    if not data.startswith(PNG_SIGNATURE):
        return None
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, start)
        chunk = data[start : start + 12 + size]
        is_sound_exif = name == b"eXIf" and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if name[:1].isupper() or name == b"tRNS" or is_sound_exif:
            kept.append(chunk)
        start += len(chunk)
    return b"".join([*kept, data[start:]])


def _tiff_samples(image: TiffImagePlugin.TiffImageFile) -> Samples:
    tags = image.tag_v2
    bits = max(tags.get(BITS_PER_SAMPLE, (1,)))
    if bits > 8:
        kinds = tags.get(SAMPLE_FORMAT, (UNSIGNED,))
        if bits > 16 or any(kind != UNSIGNED for kind in kinds):
            sign = "" if set(kinds) == {UNSIGNED} else "signed "
            raise BadImage(
                f"cannot decode {sign}samples of {bits} bits: their range is not defined; expected unsigned samples of "
                "at most 16 bits"
            )
        if tags.get(PLANAR_CONFIGURATION) == SEPARATE_PLANES and len(image.getbands()) > 1:
            raise BadImage(
                f"cannot decode {bits}-bit samples in separate planes; expected the samples of a pixel side by side"
            )
    return Samples(bits, tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)
