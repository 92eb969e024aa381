"""Samples of every depth and order keep their meaning, and a clear colour is white, or the picture is refused."""

import struct

import numpy as np
import pytest
from PIL import Image

from models.images import decode_image, silent_conversions
from models.types import BadImage
from tests.models.test_images import WHITE, pixels
from tests.pictures import encoded
from tests.zoo.pictures import png
from tests.zoo.tiff import tiff


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_high_byte(kind: str) -> None:
    samples = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    assert pixels(encoded(Image.fromarray(samples), kind))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0x80, 0xFF]


def test_16_bit_colour_keeps_its_high_byte() -> None:
    row = struct.pack(">6H", 0x1234, 0x8000, 0xFFFF, 0, 255, 256)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = png(header, b"\0" + row)
    assert pixels(data).tolist() == [[[0x12, 0x80, 0xFF], [0, 0, 1]]]


DEEP = np.array([[0, 0x1234, 0x8000, 0xFFFF]], np.uint16)


@pytest.mark.parametrize(
    ("data", "gray"),
    [
        (tiff(DEEP, 16), [0, 0x12, 0x80, 0xFF]),
        (tiff(DEEP, 16, ">"), [0, 0x12, 0x80, 0xFF]),
        (tiff(DEEP, 16, white_is_zero=True), [0xFF, 0xED, 0x7F, 0]),
        (tiff(DEEP >> 4, 12), [0, 0x12, 0x80, 0xFF]),
        (tiff((DEEP >> 8).astype(np.uint8), 8, white_is_zero=True), [0xFF, 0xED, 0x7F, 0]),
    ],
)
def test_gray_tiffs_of_every_depth_keep_their_high_byte_and_their_white(data: bytes, gray: list[int]) -> None:
    assert pixels(data)[0, :, 0].tolist() == gray


@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_tiffs_of_16_bits_keep_their_high_bytes(order: str) -> None:
    colour = np.random.default_rng(0).integers(0, 2**16, (3, 5, 3), np.uint16)
    assert np.array_equal(pixels(tiff(colour, 16, order)), colour >> 8)


def test_planes_of_8_bits_are_put_together_and_planes_of_16_are_refused() -> None:
    colour = np.random.default_rng(0).integers(0, 2**8, (3, 5, 3), np.uint8)
    assert np.array_equal(pixels(tiff(colour, 8, planes=True)), colour)
    with pytest.raises(BadImage, match="16-bit samples in separate planes; expected the samples of a pixel side"):
        decode_image(tiff(colour.astype(np.uint16), 16, planes=True))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_samples_without_a_defined_range_are_refused_whatever_their_values(dtype: type) -> None:
    samples = np.array([[0, 1]], dtype)
    with pytest.raises(
        BadImage, match=rf"samples of {samples.itemsize * 8} bits: their range is not defined; expected"
    ):
        decode_image(tiff(samples, samples.itemsize * 8))


def test_float_pixels_are_refused() -> None:
    for data in (encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), tiff(np.ones((2, 2), np.float32), 32)):
        with pytest.raises(BadImage, match="float pixels"):
            decode_image(data)


@pytest.mark.parametrize(
    ("bits", "row", "clear", "gray"),
    [
        (1, bytes([0b01010000]), 1, [0, 255, 0, 255]),
        (1, bytes([0b01010000]), 0, [255, 255, 255, 255]),
        (2, bytes([0b00011011]), 1, [0, 255, 170, 255]),
        (4, bytes([0x01, 0x2F]), 2, [0, 17, 255, 255]),
        (8, bytes([0, 1, 2, 3]), 2, [0, 1, 255, 3]),
        (16, struct.pack(">4H", 0, 0x1234, 0x1235, 0x1234), 0x1234, [0, 255, 0x12, 255]),
    ],
)
def test_the_clear_gray_of_a_png_is_laid_on_white_at_every_depth(
    bits: int, row: bytes, clear: int, gray: list[int]
) -> None:
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    data = png(header, b"\0" + row, (b"tRNS", struct.pack(">H", clear)))
    assert pixels(data)[0, :, 0].tolist() == gray
    assert "transparent" in silent_conversions(data)


def test_the_clear_colour_of_a_16_bit_png_is_compared_with_all_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = [(0x1234, 0x1234, 0x1234), (0x1235, 0x1234, 0x1234), (0x1234, 0x1234, 0x1234)]
    row = b"\0" + struct.pack(">9H", *(sample for colour in colours for sample in colour))
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    data = png(header, row * 2, (b"tRNS", struct.pack(">3H", 0x1234, 0x1234, 0x1234)))
    for strip in (100, 1):
        monkeypatch.setattr("models.images.STRIP_PIXELS", strip)
        assert pixels(data).tolist() == [[list(WHITE), [0x12, 0x12, 0x12], list(WHITE)]] * 2
