"""Whatever a file is, it becomes upright RGB pixels or one clear refusal."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from PIL import AvifImagePlugin, Image, WebPImagePlugin, features

from models.images import LIMIT_PIXELS, decode_image, group_by_image, image_name, silent_conversions
from models.types import BadImage, ImageSettings
from tests.pictures import encoded
from tests.zoo.pictures import png
from tests.zoo.tiff import exif_with, with_exif

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters() -> Image.Image:
    """Return a picture of 32 x 16 whose corners are red, green, blue and white."""
    image = Image.new("RGB", (32, 16))
    corners = {(0, 0): RED, (16, 0): GREEN, (0, 8): BLUE, (16, 8): WHITE}
    for (x, y), color in corners.items():
        image.paste(color, (x, y, x + 16, y + 8))
    return image


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def close(image: Image.Image, x: int, y: int, color: tuple[int, int, int], within: int = 40) -> bool:
    return bool(np.abs(np.asarray(image)[y, x].astype(int) - color).max() <= within)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    assert np.array_equal(pixels(encoded(quarters(), kind)), np.asarray(quarters()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_are_decoded(kind: str) -> None:
    image = decode_image(encoded(quarters(), kind, quality=95))
    assert image.size == (32, 16)
    assert close(image, 4, 2, RED) and close(image, 28, 14, WHITE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_exif_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    undo: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),  # the camera says: turn it 90 degrees clockwise
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind != "PNG" else {}
    upright = decode_image(encoded(undo[orientation](quarters()), kind, exif=exif, **options))
    assert upright.size == (32, 16)
    corners = [(4, 2, RED), (28, 2, GREEN), (4, 14, BLUE), (28, 14, WHITE)]
    assert all(close(upright, x, y, color) for x, y, color in corners)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_is_none_does_not_cost_a_sound_picture(kind: str) -> None:
    data = encoded(quarters(), kind, exif=b"Exif\0\0this is no TIFF header at all", quality=95)
    assert close(decode_image(data), 4, 2, RED)
    assert silent_conversions(data) == ()


@pytest.mark.parametrize(
    ("tag", "type_", "count", "value"),
    [
        (296, 2, 2, b"2\0"),  # ResolutionUnit as text
        (282, 10, 1, struct.pack("<ll", -72, 1)),  # XResolution signed and negative
        (271, 5, 1, struct.pack("<LL", 1, 1)),  # Make as a rational
        (315, 11, 1, struct.pack("<f", 1.5)),  # Artist as a float
        (259, 7, 2, b"\x06\0"),  # Compression undefined
        (0x8769, 6, 1, b"\xf0"),  # the pointer to more EXIF in a signed byte
        (256, 9, 1, struct.pack("<l", -1)),  # ImageWidth below nothing
    ],
)
def test_an_odd_tag_beside_the_orientation_does_not_keep_a_photograph_from_being_turned(
    tag: int, type_: int, count: int, value: bytes
) -> None:
    exif = exif_with(6, (tag, type_, count, value))
    lying = encoded(quarters().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)
    data = with_exif(lying, exif)
    upright = decode_image(data)
    assert upright.size == (32, 16) and close(upright, 4, 2, RED)


def test_texts_and_profiles_of_a_png_that_pillow_refuses_do_not_cost_its_pixels() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    rows = b"\0" + bytes(RED)
    large = zlib.compress(bytes(2 * 2**20))
    turned = exif_of(3).tobytes()[6:]
    for chunk in ((b"zTXt", b"words\0\0" + large), (b"iCCP", b"profile\0\0" + large), (b"iTXt", b"broken")):
        assert pixels(png(header, rows, chunk, (b"eXIf", turned))).tolist() == [[list(RED)]]
    wrong_sum = bytearray(png(header, rows, (b"tEXt", b"Comment\0sound pixels")))
    wrong_sum[wrong_sum.index(b"sound")] ^= 0xFF
    assert pixels(bytes(wrong_sum)).tolist() == [[list(RED)]]


def test_a_wrong_checksum_amid_the_pixels_stays_a_fault() -> None:
    data = bytearray(encoded(quarters()))
    data[data.index(b"IDAT") + 9] ^= 0xFF
    with pytest.raises(BadImage, match="cannot decode"):
        decode_image(bytes(data))


def test_jpeg_2000_is_decoded() -> None:
    assert np.array_equal(pixels(encoded(quarters(), "JPEG2000", irreversible=False)), np.asarray(quarters()))


def test_a_heic_photograph_is_decoded_upright() -> None:
    sink = io.BytesIO()
    pillow_heif.from_pillow(quarters().resize((64, 32))).save(sink, quality=95)
    image = decode_image(sink.getvalue())
    assert image.size == (64, 32) and close(image, 8, 4, RED) and close(image, 56, 28, WHITE)


def test_without_its_extra_a_heic_photograph_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.images._can_read_heif", lambda: False)
    with pytest.raises(BadImage, match=r"HEIC pictures need pip install 'triptych\[heic\]'"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))


def test_transparency_is_laid_on_white() -> None:
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (pixels(encoded(image)) == 255).all()
    image.putalpha(Image.new("L", image.size, 128))
    assert pixels(encoded(image))[0, 0].tolist() == [255, 127, 127]


def test_grey_with_transparency_is_laid_on_white() -> None:
    image = Image.merge("LA", (Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 64)))
    assert pixels(encoded(image))[0, 0].tolist() == [191, 191, 191]


def test_a_transparent_palette_colour_is_laid_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    for data in (encoded(image, transparency=1), encoded(image, "GIF", transparency=1)):
        assert pixels(data).tolist() == [[list(RED), list(WHITE)]]


def test_a_palette_without_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert pixels(encoded(image)).tolist() == [[list(RED), list(GREEN)]]


def test_one_transparent_rgb_colour_is_laid_on_white() -> None:
    assert pixels(encoded(quarters(), transparency=RED))[0, 0].tolist() == list(WHITE)


def test_one_bit_pictures_are_black_and_white() -> None:
    image = Image.new("1", (4, 4), 1)
    image.putpixel((0, 0), 0)
    assert pixels(encoded(image))[0].tolist() == [[0, 0, 0]] + [[255, 255, 255]] * 3


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert close(decode_image(encoded(image, kind)), 8, 8, RED)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert close(decode_image(data), 8, 8, RED, within=2)


def test_of_a_stereo_photograph_the_first_picture_is_taken() -> None:
    data = encoded(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 16), BLUE)], quality=95)
    assert close(decode_image(data), 4, 2, RED)


def test_one_pixel_is_a_picture() -> None:
    assert pixels(encoded(Image.new("RGB", (1, 1), BLUE))).tolist() == [[list(BLUE)]]


@pytest.mark.parametrize("size", [(20_000, 20), (20, 20_000)])
def test_a_long_picture_is_a_picture(size: tuple[int, int]) -> None:
    assert decode_image(encoded(Image.new("RGB", size, RED), "JPEG")).size == size


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused_from_its_header_alone(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    # The pixel data are absent: reading them would fail in another way.
    with pytest.raises(BadImage, match=r"refused .*limit is 89478485") as caught:
        decode_image(png(header, b""))
    assert side * side > LIMIT_PIXELS and "truncated" not in str(caught.value)


def test_a_bomb_is_refused_even_where_pillow_has_been_told_to_let_it_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImage, match="refused 20000 x 20000 pixels"):
        decode_image(png(struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b""))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_truncated_picture_is_refused_with_its_length(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    cut = data[: len(data) // 2]
    with pytest.raises(BadImage, match=f"cannot decode {len(cut)} bytes that start with"):
        decode_image(cut)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_a_format_that_pillow_was_built_without_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(quarters(), kind)
    plugin = {"AVIF": AvifImagePlugin, "WEBP": WebPImagePlugin}[kind]
    monkeypatch.setattr(plugin, "SUPPORTED", False)
    monkeypatch.setattr(features, "check", lambda name: name != kind.lower())
    with pytest.raises(BadImage, match=f"this Pillow was built without {kind}"):
        decode_image(data)


def test_no_bytes_are_no_picture() -> None:
    with pytest.raises(BadImage, match="cannot decode 0 bytes"):
        decode_image(b"")


def test_text_is_no_picture() -> None:
    with pytest.raises(BadImage, match=r"cannot decode 20 bytes that start with b'<html>404 no'"):
        decode_image(b"<html>404 not found>")


def test_postscript_is_refused_without_starting_an_interpreter() -> None:
    with pytest.raises(BadImage, match="%!PS-Adobe-3"):
        decode_image(encoded(quarters(), "EPS"))


@pytest.mark.parametrize("kind", ["PDF", "PCX", "SGI", "TGA"])
def test_formats_not_on_the_list_are_refused(kind: str) -> None:
    with pytest.raises(BadImage, match="cannot decode"):
        decode_image(encoded(quarters(), kind))


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def film(kind: str) -> bytes:
    return encoded(quarters(), kind, save_all=True, append_images=[Image.new("RGB", (32, 16), BLUE)])


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (encoded(quarters(), "JPEG"), ()),
        (encoded(quarters()), ()),
        (encoded(quarters(), "JPEG", exif=exif_of(1)), ()),
        (encoded(quarters(), "JPEG", exif=exif_of(6)), ("exif_turned",)),
        (encoded(quarters(), "PNG", exif=exif_of(3)), ("exif_turned",)),
        (encoded(quarters(), "WEBP", exif=exif_of(8)), ("exif_turned",)),
        (encoded(quarters().convert("CMYK"), "JPEG"), ("cmyk",)),
        (encoded(quarters().convert("CMYK"), "TIFF"), ("cmyk",)),
        (encoded(quarters().convert("P")), ("palette",)),
        (encoded(quarters().convert("P"), transparency=1), ("palette", "transparent")),
        (encoded(quarters().convert("L"), "JPEG"), ("gray",)),
        (encoded(quarters().convert("1"), "TIFF"), ("gray",)),
        (encoded(quarters().convert("LA")), ("gray", "transparent")),
        (encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "WEBP"), ("transparent",)),
        (encoded(Image.fromarray(np.full((3, 16), 9, np.uint16))), ("gray", "sixteen_bit")),
        (encoded(Image.fromarray(np.full((3, 16), 9, np.uint16)), "TIFF"), ("gray", "sixteen_bit")),
        (encoded(quarters(), "JPEG", icc_profile=b"desc sRGB built-in"), ()),
        (encoded(quarters(), "JPEG", icc_profile=b"desc Display P3"), ("color_profile",)),
        (film("GIF"), ("palette", "animated")),
        (film("WEBP"), ("transparent", "animated")),
        (film("PNG"), ("animated",)),
        (film("AVIF"), ("animated",)),
        (film("TIFF"), ("several_pictures",)),
        (film("MPO"), ("several_pictures",)),
        (b"", ()),
        (b"<html>", ()),
    ],
)
def test_what_decoding_settles_silently_has_a_name(data: bytes, names: tuple[str, ...]) -> None:
    assert silent_conversions(data) == silent_conversions(memoryview(data)) == names


def test_16_bit_colour_is_named_although_pillow_opens_it_as_8() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    assert silent_conversions(png(header, bytes(13))) == ("sixteen_bit",)


def test_oddities_of_what_cannot_be_decoded_are_its_headers_or_none() -> None:
    data = encoded(quarters().convert("CMYK"), "JPEG")
    assert silent_conversions(data[:-20]) == ("cmyk",)
    assert silent_conversions(png(struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"")) == ()


def test_a_large_picture_is_laid_on_white_in_strips_as_if_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (37, 23, 4), dtype=np.uint8), "RGBA")
    for data in (encoded(image), encoded(image.convert("P"), transparency=3), encoded(image.convert("LA"))):
        at_once = pixels(data)
        monkeypatch.setattr("models.images.STRIP_PIXELS", 100)
        assert np.array_equal(pixels(data), at_once)
        monkeypatch.undo()


def test_an_image_is_named_by_its_file_and_its_settings() -> None:
    data = encoded(Image.new("RGB", (4, 2)))
    settings = [ImageSettings(), ImageSettings(max_pixels=1), ImageSettings(min_pixels=1)]
    assert image_name(data, settings[0]) == image_name(bytes(bytearray(data)), ImageSettings())
    names = [image_name(one, own) for one in (data, encoded(Image.new("RGB", (2, 4))), b"") for own in settings]
    assert len(set(names)) == 9 and {len(name) for name in names} == {64}


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        ([], []),
        ([[], [], []], [0, 1, 2]),
        ([["a"], ["b"], ["a"], ["b"], ["a"]], [0, 2, 4, 1, 3]),
        ([["a"], [], ["a"], []], [0, 2, 1, 3]),
        ([["a"], ["b"], ["c", "a"], ["c"]], [0, 2, 3, 1]),
        ([["a", "a"], ["b"], ["a"]], [0, 2, 1]),
    ],
)
def test_rows_that_share_an_image_stand_together_behind_the_first_of_them(
    rows: list[list[str]], order: list[int]
) -> None:
    assert group_by_image(rows) == order
