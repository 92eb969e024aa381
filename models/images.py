"""Turn compressed image bytes into upright RGB pictures and back, and name what families make of them.

Everything a file can do to a model is settled here, once and for all families: orientation, transparency,
palettes, bit depths, colour spaces, frames, size. What a family does with the picture is not known here.
"""

import contextlib
import functools
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features

from models.samples import Samples, gray_of, is_clear, low_bytes_of, read_samples, without_metadata
from models.types import BadImage, ImageSettings, PictureFormat, Pixels

# Only formats that Pillow decodes by itself: EPS would start Ghostscript on dataset bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO", "JPEG2000")
# A HEIC photograph begins with one of these (ISO/IEC 23008-12, B.4); HEIF is their format's name in Pillow.
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Pillow's own threshold (a quarter gibibyte of RGB), made an error here instead of a warning.
LIMIT_PIXELS = 89_478_485
# Converted at once; more would only need more memory.
STRIP_PIXELS = 2**22
# What turns a picture upright, by its EXIF orientation.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Formats whose second picture is no frame of a film.
SEVERAL = ("TIFF", "MPO", "HEIF")


def decode_image(data: bytes) -> Image.Image:
    """Decode one picture to mode RGB.

    EXIF orientation is applied (the reference processors do so only when they open the file themselves),
    transparency is composited on white as `transformers` 5 does, 16-bit samples keep their high byte, and
    of an animation the first frame is taken. At most the picture as its file has it, the RGB picture and what the
    format's own decoder needs are in memory at once, and of a 16-bit PNG with a clear colour its low bytes.

    Raises:
        BadImage: Not an image, cut short, of a refused format, or more than LIMIT_PIXELS pixels.
    """
    try:
        return _decoded(data)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"refused a decompression bomb: {error}; the limit is {LIMIT_PIXELS} pixels") from error
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type there is
        plain = without_metadata(data)
        if plain is not None:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                return _decoded(plain)
        raise BadImage(
            f"cannot decode {_described(data)}: {_lacking(data) or error or type(error).__name__}"
        ) from error


@dataclass(frozen=True)
class Look:
    """What a picture's header says.

    Attributes:
        format: As Pillow calls it: JPEG, PNG, ...
        width: In pixels, as it is stored.
        height: Likewise.
        conversions: See `silent_conversions`.
    """

    format: str
    width: int
    height: int
    conversions: tuple[str, ...]


def silent_conversions(data: bytes | memoryview) -> tuple[str, ...]:
    """Name what decoding a picture changes or drops silently, from its header alone; nothing if it cannot be opened.

    The words: exif_turned, cmyk, palette, gray, transparent, sixteen_bit, color_profile (one that is not sRGB; colours
    are taken as they stand), animated (only the first frame is seen), several_pictures (of a TIFF or a stereo
    photograph; likewise).
    """
    look = look_at(data)
    return look.conversions if look else ()


def look_at(data: bytes | memoryview) -> Look | None:
    """Read a picture's header; None if it cannot be opened."""
    try:
        with _quiet():
            image = _open(data)
            found = {
                "exif_turned": _orientation(image, data) in UPRIGHT,
                "cmyk": image.mode == "CMYK",
                "palette": image.mode.startswith("P"),
                "gray": image.getbands()[0] in ("1", "L", "I"),
                "transparent": _is_transparent(image),
                "sixteen_bit": image.mode.startswith("I") or any(";16" in str(tile.args) for tile in image.tile),
                "color_profile": _has_other_profile(image.info.get("icc_profile")),
                "animated": _has_more(image) and image.format not in SEVERAL,
                "several_pictures": _has_more(image) and image.format in SEVERAL,
            }
    except Exception:  # decoding will say why, as this row's error
        return None
    conversions = tuple(name for name, is_so in found.items() if is_so)
    return Look(str(image.format), image.width, image.height, conversions)


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


def image_name(data: bytes, settings: ImageSettings) -> str:
    """Name what a model sees of an image: equal names, equal features.

    The file is hashed and not its tiles, which are many times as large; two files of one picture have two names.

    Args:
        data: The compressed file.
        settings: Those under which it is made into tiles.
    """
    digest = hashlib.sha256(f"{settings}\n".encode())
    digest.update(data)
    return digest.hexdigest()


def group_by_image(names: Sequence[Sequence[str]]) -> list[int]:
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Pillow warns about odd metadata that does no harm to pixels; only its bomb warning matters.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(data: bytes | memoryview) -> ImageFile.ImageFile:
    """Read a picture's header."""
    formats = [*FORMATS, "HEIF"] if _is_heif(data) and _can_read_heif() else FORMATS
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:  # whose own message has an address in memory
        raise ValueError("not a picture of a known format") from error
    if image.width * image.height > LIMIT_PIXELS:  # Pillow's warning may be off, its limit another
        raise BadImage(f"refused {image.width} x {image.height} pixels: the limit is {LIMIT_PIXELS}")
    return image


def _decoded(data: bytes) -> Image.Image:
    with _quiet():
        image = _open(data)
        samples = read_samples(image)
        low = low_bytes_of(_open(data)) if isinstance(samples.clear, tuple) else None
        image.load()
        # Only the turn is taken from the EXIF: `ImageOps.exif_transpose` writes the rest back, and fails on odd fields.
        turn = UPRIGHT.get(_orientation(image, data))
        upright = _on_white(image, samples, low)
        return upright if turn is None else upright.transpose(turn)


def _on_white(image: Image.Image, samples: Samples, low: Image.Image | None) -> Image.Image:
    if image.mode == "RGB" and low is None and not _is_transparent(image):
        return image
    flat = Image.new("RGB", image.size)
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        box = (0, top, image.width, min(top + step, image.height))
        strip = image.crop(box)
        if low is not None and isinstance(samples.clear, tuple):
            mask = is_clear(strip, low.crop(box), samples.clear)
            strip.paste((255, 255, 255), mask=Image.fromarray(mask))
        flat.paste(_strip_on_white(strip, samples), (0, top))
    return flat


def _strip_on_white(strip: Image.Image, samples: Samples) -> Image.Image:
    if strip.mode.startswith("I"):
        return Image.fromarray(gray_of(strip, samples)).convert("RGB")
    if _is_transparent(strip):
        strip = strip.convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        strip = Image.alpha_composite(white, strip)
    return strip.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or image.info.get("transparency") is not None


def _orientation(image: ImageFile.ImageFile, data: bytes | memoryview) -> int:
    # Asked for its EXIF, a PNG that has none before its pixels is decoded whole, to look behind them.
    is_in_sight = image.format != "PNG" or "exif" in image.info or b"eXIf" in bytes(memoryview(data)[-(2**16) :])
    try:
        exif = image.getexif() if is_in_sight else Image.Image.getexif(image)
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # what is no EXIF turns nothing
        return 1


def _has_more(image: Image.Image) -> bool:
    return bool(getattr(image, "is_animated", False))


def _has_other_profile(profile: bytes | None) -> bool:
    # A profile names itself in ASCII or in UTF-16, depending on its version.
    return profile is not None and not any(name in profile for name in (b"sRGB", "sRGB".encode("utf-16-be")))


def _described(data: bytes) -> str:
    return "0 bytes" if not data else f"{len(data)} bytes that start with {data[:12]!r}"


def _lacking(data: bytes) -> str | None:
    """Say so where it is not the file that is at fault but Pillow, built or installed without a format."""
    if _is_heif(data) and not _can_read_heif():
        return "HEIC pictures need pip install 'triptych[heic]'"
    is_of = {"AVIF": data[4:12] in (b"ftypavif", b"ftypavis"), "WEBP": data[:4] == b"RIFF" and data[8:12] == b"WEBP"}
    lacking = [name for name, is_it in is_of.items() if is_it and not features.check(name.lower())]
    return f"this Pillow was built without {lacking[0]}" if lacking else None


def _is_heif(data: bytes | memoryview) -> bool:
    return bytes(data[4:8]) == b"ftyp" and bytes(data[8:12]) in HEIF_BRANDS


@functools.cache
def _can_read_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
