"""Pictures in every mode, format and state, and files that only pretend to be one."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, PngImagePlugin

from tests.zoo.animal import BLUE, GREEN, RED, WHITE, Animal
from tests.zoo.tiff import exif_with, tiff, with_exif

# Where a photograph's first corner lies in a file of each orientation: what turns it upright, undone.
UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def pictures() -> Iterator[Animal]:
    """Give them all."""
    for kind in (_jpegs, _turned, _pngs, _other_formats, _sizes, _cut_off, _none):
        yield from kind()


def quarters(mode: str = "RGB") -> Image.Image:
    """Return a picture of 64 x 32 whose corners are red, green, blue and white."""
    image = Image.new("RGB", (64, 32))
    for (x, y), color in {(0, 0): RED, (32, 0): GREEN, (0, 16): BLUE, (32, 16): WHITE}.items():
        image.paste(color, (x, y, x + 32, y + 16))
    return image.convert(mode)


def noise() -> bytes:
    """Return a PNG of 12 kB."""
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def png(header: bytes, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Put a PNG together by hand, whatever its header promises."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    signed = [(name + body, struct.pack(">I", len(body))) for name, body in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(size + body + struct.pack(">I", zlib.crc32(body)) for body, size in signed)


def heic() -> bytes:
    """Return the corners as a HEIC photograph."""
    sink = io.BytesIO()
    pillow_heif.from_pillow(quarters()).save(sink, quality=100)
    return sink.getvalue()


def _film(kind: str, **options: Any) -> bytes:
    return encoded(quarters(), kind, save_all=True, append_images=[Image.new("RGB", (64, 32), BLUE)], **options)


def _jpegs() -> Iterator[Animal]:
    sound = encoded(quarters(), "JPEG", quality=95)
    ink = quarters("CMYK")
    yield Animal("sound.jpg", "nothing", sound, corner=RED)
    yield Animal("CAPITALS.JPEG", "its extension in capitals", sound, corner=RED)
    yield Animal("picture.jfif", "a rare extension", sound, corner=RED)
    yield Animal("progressive.jpg", "progressive", encoded(quarters(), "JPEG", progressive=True), corner=RED)
    yield Animal("gray.jpg", "one channel", encoded(quarters("L"), "JPEG"), noted=("gray",), corner=(76, 76, 76))
    yield Animal("cmyk.jpg", "CMYK, inverted as Adobe does", encoded(ink, "JPEG"), noted=("cmyk",), corner=RED)
    profile = encoded(quarters(), "JPEG", icc_profile=b"desc Display P3")
    yield Animal("wide_gamut.jpg", "a colour profile that is not sRGB", profile, noted=("color_profile",))
    yield Animal("stereo.jpg", "two pictures in one file (MPO)", _film("MPO"), noted=("several_pictures",), corner=RED)
    yield Animal("comment.jpg", "60 kB of comment", encoded(quarters(), "JPEG", comment=b"x" * 60_000), corner=RED)
    yield Animal("behind.jpg", "other bytes behind its end", sound + b"trailing" * 99, corner=RED)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def _turned() -> Iterator[Animal]:
    for orientation, undo in UNDO.items():
        lying = quarters() if undo is None else quarters().transpose(undo)
        data = encoded(lying, "JPEG", quality=95, exif=_exif(orientation))
        noted = () if undo is None else ("exif_turned",)
        yield Animal(f"exif_{orientation}.jpg", f"EXIF orientation {orientation}", data, noted=noted, corner=RED)
    upside_down = quarters().transpose(Image.Transpose.ROTATE_180)
    for kind in ("png", "webp"):
        data = encoded(upside_down, kind, exif=_exif(3), lossless=True)
        yield Animal(f"exif_3.{kind}", "upside down, and EXIF says so", data, noted=("exif_turned",), corner=RED)
    yield Animal("exif_9.jpg", "EXIF orientation 9", encoded(quarters(), "JPEG", exif=_exif(9)), corner=RED)
    garbage = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*garbage garbage")
    yield Animal("exif_garbage.jpg", "EXIF that is none", garbage, corner=RED)
    for kind in ("png", "webp"):
        garbage = encoded(quarters(), kind, exif=b"Exif\0\0MM\0*garbage garbage")
        yield Animal(f"exif_garbage.{kind}", "EXIF that is none", garbage, corner=RED)
    lying = encoded(quarters().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)
    for name, entry in {
        "make": ("the camera's make as a number", (271, 5, 1, struct.pack("<LL", 1, 1))),
        "unit": ("the unit of its resolution as text", (296, 2, 2, b"2\0")),
    }.items():
        data = with_exif(lying, exif_with(6, entry[1]))
        yield Animal(f"exif_{name}.jpg", f"turned; {entry[0]}", data, noted=("exif_turned",), corner=RED)


def _pngs() -> Iterator[Animal]:
    clear = quarters("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    half = Image.merge("LA", (Image.new("L", (8, 8), 0), Image.new("L", (8, 8), 64)))
    palette = Image.new("P", (8, 8))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    sixteen = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    deep = png(struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 0, 0))
    clear_note, gray = ("transparent",), (128, 128, 128)
    yield Animal("transparent.png", "all of it transparent", encoded(clear), noted=clear_note, corner=WHITE)
    yield Animal("gray_alpha.png", "gray, mostly clear", encoded(half), noted=("gray", *clear_note), corner=(191,) * 3)
    yield Animal("palette.png", "a palette", encoded(palette), noted=("palette",), corner=RED)
    data = encoded(palette, transparency=0)
    yield Animal("palette_clear.png", "a clear palette colour", data, noted=("palette", *clear_note), corner=WHITE)
    data = encoded(quarters(), transparency=RED)
    yield Animal("clear_red.png", "one RGB colour is clear", data, noted=clear_note, corner=WHITE)
    yield Animal("one_bit.png", "one bit a pixel", encoded(quarters("1")), noted=("gray",))
    yield Animal("gray_16.png", "16-bit gray", encoded(sixteen), noted=("gray", "sixteen_bit"), corner=gray)
    yield Animal("rgb_16.png", "16-bit colour", deep, noted=("sixteen_bit",), corner=RED)
    clear_gray = png(struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0), bytes([0, 0b01101100]), (b"tRNS", bytes([0, 1])))
    yield Animal(
        "clear_gray_2.png", "2-bit gray, one of them clear", clear_gray, noted=("gray", *clear_note), corner=WHITE
    )
    row = b"\0" + struct.pack(">6H", 0x1234, 0x1234, 0x1234, 0x1235, 0, 0)
    clear_deep = png(
        struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), row, (b"tRNS", struct.pack(">3H", 0x1234, 0x1234, 0x1234))
    )
    noted = (*clear_note, "sixteen_bit")
    yield Animal("clear_rgb_16.png", "16-bit colour, one of them clear", clear_deep, noted=noted, corner=WHITE)
    yield Animal("animated.png", "an animation (APNG)", _film("PNG"), noted=("animated",), corner=RED)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("bomb", "x" * 2 * 2**20, zip=True)
    bomb = encoded(quarters(), pnginfo=texts)
    yield Animal("text_bomb.png", "2 MB of text in 2 kB", bomb, corner=RED)
    broken = bytearray(encoded(quarters()))
    broken[len(broken) // 2] ^= 0xFF
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "sound pixels")
    broken_words = bytearray(encoded(quarters(), pnginfo=words))
    broken_words[broken_words.index(b"sound")] ^= 0xFF
    yield Animal("checksum_of_text.png", "a wrong byte amid its texts", bytes(broken_words), corner=RED)
    yield Animal("checksum.png", "a wrong byte amid its pixels", bytes(broken), "decode/BadImage")


def _other_formats() -> Iterator[Animal]:
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    deep = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    yield Animal("lossless.webp", "nothing", encoded(quarters(), "WEBP", lossless=True), corner=RED)
    yield Animal("alpha.webp", "half clear", encoded(half, "WEBP"), noted=("transparent",), corner=(255, 127, 127))
    film = _film("WEBP", lossless=True)
    yield Animal("animated.webp", "an animation", film, noted=("transparent", "animated"), corner=RED)
    yield Animal("still.gif", "a palette, as all GIFs", encoded(quarters(), "GIF"), noted=("palette",), corner=RED)
    yield Animal("animated.gif", "an animation", _film("GIF"), noted=("palette", "animated"), corner=RED)
    yield Animal("picture.bmp", "nothing", encoded(quarters(), "BMP"), corner=RED)
    yield Animal("one_bit.bmp", "one bit a pixel", encoded(quarters("1"), "BMP"), noted=("gray",))
    yield Animal("lzw.tiff", "LZW", encoded(quarters(), "TIFF", compression="tiff_lzw"), corner=RED)
    yield Animal("jpeg.tif", "JPEG within TIFF", encoded(quarters(), "TIFF", compression="jpeg"), corner=RED)
    yield Animal("cmyk.tif", "CMYK", encoded(quarters("CMYK"), "TIFF"), noted=("cmyk",), corner=RED)
    yield Animal("pages.tif", "two pages", _film("TIFF"), noted=("several_pictures",), corner=RED)
    data = encoded(deep, "TIFF")
    yield Animal("gray_16.tif", "16-bit gray", data, noted=("gray", "sixteen_bit"), corner=(128, 128, 128))
    noted, samples = ("gray", "sixteen_bit"), np.full((8, 8), 0x4000, np.uint16)
    light, dark = (0xBF,) * 3, (0x40,) * 3
    yield Animal("big_endian.tif", "16-bit gray, big-endian", tiff(samples, 16, ">"), noted=noted, corner=dark)
    inverted = tiff(samples, 16, white_is_zero=True)
    yield Animal("white_is_zero.tif", "16-bit gray, white is 0", inverted, noted=noted, corner=light)
    yield Animal("gray_12.tif", "12-bit gray", tiff(samples >> 4, 12), noted=noted, corner=dark)
    deep_colour = tiff(np.full((8, 8, 3), 0x4000, np.uint16), 16, planes=True)
    yield Animal("planes_16.tif", "16-bit colour in separate planes", deep_colour, "decode/BadImage")
    colour = tiff(np.full((8, 8, 3), RED, np.uint8), 8, planes=True)
    yield Animal("planes_8.tif", "8-bit colour in separate planes", colour, corner=RED)
    for name, value in (("few", 7), ("many", 70_000)):
        wide = encoded(Image.fromarray(np.full((8, 8), value, np.int32)), "TIFF")
        yield Animal(f"gray_32_{name}.tif", f"32-bit samples of {value:,}", wide, "decode/BadImage")
    yield Animal("jpeg_2000.jp2", "JPEG 2000", encoded(quarters(), "JPEG2000"), corner=RED)
    yield Animal("photo.heic", "HEIC; with triptych[heic]", heic(), corner=RED)
    yield Animal("float.tif", "samples of floats", encoded(quarters("F"), "TIFF"), "decode/BadImage")
    yield Animal("picture.avif", "nothing", encoded(quarters(), "AVIF", quality=95), corner=RED)
    yield Animal("animated.avif", "an animation", _film("AVIF", quality=95), noted=("animated",), corner=RED)
    yield Animal("picture.ppm", "no compression", encoded(quarters(), "PPM"), corner=RED)


def _sizes() -> Iterator[Animal]:
    yield Animal("one_pixel.png", "one pixel", encoded(Image.new("RGB", (1, 1), BLUE)), corner=BLUE)
    yield Animal("wide.png", "20,000 x 1", encoded(Image.new("RGB", (20_000, 1), RED)), corner=RED)
    yield Animal("tall.png", "1 x 20,000", encoded(Image.new("RGB", (1, 20_000), RED)), corner=RED)
    long = encoded(Image.new("RGB", (20_000, 20), RED), "JPEG")
    yield Animal("panorama.jpg", "20,000 x 20", long, corner=RED)
    for side in (10_000, 20_000):
        bomb = png(struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"")
        yield Animal(f"bomb_{side}.png", f"a header of {side:,} x {side:,} pixels", bomb, "decode/BadImage")
    bomb = encoded(Image.new("1", (10_000, 10_000)), "TIFF", compression="group4")
    yield Animal("bomb.tif", "100 million black pixels in 4 kB", bomb, "decode/BadImage")
    nothing = png(struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0), b"")
    yield Animal("no_pixels.png", "0 x 0 pixels", nothing, "decode/BadImage")


def _cut_off() -> Iterator[Animal]:
    picture = Image.open(io.BytesIO(noise()))
    for kind in ("jpg", "png", "webp", "gif", "tiff", "avif"):
        data = encoded(picture, {"jpg": "JPEG"}.get(kind, kind))
        yield Animal(f"half.{kind}", "cut off in the middle", data[: len(data) // 2], "decode/BadImage")
    jpeg = encoded(quarters(), "JPEG", quality=95)
    yield Animal("almost.jpg", "its last 2 bytes are missing", jpeg[:-2], "decode/BadImage")
    yield Animal("header.jpg", "20 bytes of it", jpeg[:20], "decode/BadImage")
    yield Animal("start.png", "only the signature", encoded(quarters())[:8], "decode/BadImage")
    yield Animal("empty.jpg", "no bytes", b"", "decode/BadImage")


def _none() -> Iterator[Animal]:
    jpeg, portable = encoded(quarters(), "JPEG"), encoded(quarters())
    yield Animal("really_png.jpg", "a PNG; content decides", portable, corner=RED)
    yield Animal("really_jpeg.png", "a JPEG; content decides", jpeg)
    bad = "decode/BadImage"
    yield Animal("gone.jpg", "a web page: 404", b"<!DOCTYPE html><html><h1>404 Not Found</h1></html>", bad)
    yield Animal("drawing.png", "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', bad)
    yield Animal("page.jpg", "a PDF", encoded(quarters(), "PDF"), bad)
    yield Animal("postscript.jpg", "PostScript, which Pillow hands to Ghostscript", encoded(quarters(), "EPS"), bad)
    yield Animal("targa.bmp", "a TGA", encoded(quarters(), "TGA"), bad)
    yield Animal("archive.jpg", "a zip", b"PK\x03\x04" + bytes(200), bad)
    yield Animal("pointer.jpg", "a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\n", bad)
    yield Animal("base64.jpg", "base64 text of a JPEG", b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQ==", bad)
    yield Animal("zeros.jpg", "4 kB of zeros, as a crashed disk leaves", bytes(4096), bad)
    yield Animal("drawing.svg", "an SVG by name", b"<svg/>", "no plan", trouble="cannot tell the format")
