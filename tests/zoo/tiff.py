"""TIFFs of every depth and order, and EXIF with odd fields, written by hand: Pillow writes few of them."""

import struct

import numpy as np


def tiff(samples: np.ndarray, bits: int, order: str = "<", white_is_zero: bool = False, planes: bool = False) -> bytes:
    """Write a TIFF without compression: samples of (height, width) or (height, width, 3), unsigned, signed or float."""
    height, width, *bands = samples.shape
    num_bands = bands[0] if bands else 1
    strips = num_bands if planes else 1
    rows = np.moveaxis(samples, 2, 0) if planes else samples
    if bits == 12:
        first, second = rows.reshape(-1, 2).astype(int).T
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    fields = {  # numbers of TIFF 6.0, all of type LONG
        256: [width],
        257: [height],
        258: [bits] * num_bands,
        259: [1],
        262: [2 if bands else int(not white_is_zero)],
        273: [0] * strips,  # the strips' places, known below
        277: [num_bands],
        278: [height],
        279: [len(data) // strips] * strips,
        284: [2 if planes else 1],
        339: [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * num_bands,
    }
    behind = 8 + 2 + 12 * len(fields) + 4
    start = behind + sum(4 * len(values) for values in fields.values() if len(values) > 1)
    fields[273] = [start + strip * (len(data) // strips) for strip in range(strips)]
    entries, extra = b"", b""
    for tag, values in fields.items():
        content = struct.pack(f"{order}{len(values)}L", *values)
        is_long = len(values) > 1
        entries += struct.pack(order + "HHL", tag, 4, len(values))
        entries += struct.pack(order + "L", behind + len(extra)) if is_long else content
        extra += content if is_long else b""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "LH", 8, len(fields)) + entries + bytes(4) + extra + data


def exif_with(orientation: int, *entries: tuple[int, int, int, bytes]) -> bytes:
    """Write EXIF with an orientation and other entries: tag, type, count and content of each."""
    content_of = sorted([(0x112, 3, 1, struct.pack("<H", orientation)), *entries])
    behind, fields, extra = 8 + 2 + 12 * len(content_of) + 4, b"", b""
    for tag, type_, count, content in content_of:
        is_long = len(content) > 4
        fields += struct.pack("<HHL", tag, type_, count)
        fields += struct.pack("<L", behind + len(extra)) if is_long else content.ljust(4, b"\0")
        extra += content if is_long else b""
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(content_of)) + fields + bytes(4) + extra


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """Put EXIF at the front of a JPEG."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
