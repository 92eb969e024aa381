"""Put a part's images into a tar that training loaders read: WebDataset samples of image, text and other columns.

It knows the columns of parts and units, and neither jobs nor storage.
"""

import io
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rows import IMAGES

TARS = "_webdataset"
# What the rows of a job that draws have; `keep`, where they have it too, says whether a check let them pass.
PICTURE_COLUMNS = ("image", "image_format", "caption_in")
# A loader wants images, texts and numbers; tokens stand in the part, and what failed is not here.
LEFT_OUT = ("output_token_ids", "output_logprobs", "choice_logprobs", "error", IMAGES.name)
EXTENSIONS = {"jpeg": "jpg"}  # the one that every loader knows
# How files begin, and what they are then called: what their rows call them need not be so.
SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II", "tif"),
    (b"MM", "tif"),
    (b"\x00\x00\x00\x0cjP", "jp2"),
    (b"\xff\x4f\xff\x51", "j2k"),
    (b"\x00\x00\x01\x00", "ico"),
)


def tar_path(number: int) -> str:
    """Return where a part's tar stands below the output."""
    return f"{TARS}/part-{number:05d}.tar"


def has_pictures(schema: pa.Schema) -> bool:
    """Say whether rows of these columns have drawn pictures."""
    return set(PICTURE_COLUMNS) <= set(schema.names)


def part_tar(number: int, rows: pa.Table, text: str, before: bytes | None = None) -> bytes:
    """Return a part's rows that are well, and kept if a check looked at them, as a tar; equal rows give equal bytes.

    A sample is called by the part's number and its row's place in the part: `00003-000017.png`, `.txt` (the text) and
    `.json` (the row's other columns, as far as they hold no bytes). Several images of a row are numbered,
    `00003-000017.0.jpg`. No two tars share a name, and without a dot in it loaders find the extension.

    Args:
        number: The part's.
        rows: Its rows, with the pictures that were drawn, or with the images that were read (IMAGES).
        text: The column with the texts.
        before: The tar that stands there: it has the images of rows without any, at their places.
    """
    standing = _images_in(before) if before else {}
    is_drawn = has_pictures(rows.schema)
    left_out = {text, *LEFT_OUT, *(PICTURE_COLUMNS if is_drawn else ())}
    columns = rows.select(
        [each.name for each in rows.schema if each.name not in left_out and not _has_bytes(each.type)]
    )
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for place in _chosen(rows, text, is_drawn=is_drawn):  # one at a time, because images are large
            images = _drawn(rows, place) if is_drawn else _read(rows, place)
            beside = {"txt": rows[text][place].as_py().encode(), "json": _json(columns.slice(place, 1))}
            for extension, data in {**(standing.get(place, {}) if images is None else images), **beside}.items():
                # The other fields of a header have fixed values: no time, no owner, mode 0644.
                info = tarfile.TarInfo(f"{number:05d}-{place:06d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def samples_in_tar(rows: pa.Table, text: str) -> dict[int, tuple[str, bool]]:
    """Return what a tar of these rows holds, by their places: a text, and whether images; see `part_tar`."""
    is_drawn = has_pictures(rows.schema)
    samples = {}
    for place in _chosen(rows, text, is_drawn=is_drawn):
        has_images = is_drawn or bool(rows["image_tokens"][place].as_py())
        samples[place] = rows[text][place].as_py(), has_images
    return samples


def _chosen(rows: pa.Table, text: str, *, is_drawn: bool) -> Iterator[int]:
    """Give the places of the rows that belong into the tar."""
    chosen = rows["error"].is_null()
    for name in PICTURE_COLUMNS if is_drawn else (text,):
        chosen = pc.and_(chosen, rows[name].is_valid())
    if is_drawn and "keep" in rows.column_names:
        chosen = pc.and_(chosen, pc.fill_null(rows["keep"], True))
    yield from pc.indices_nonzero(chosen).to_pylist()


def _drawn(rows: pa.Table, place: int) -> dict[str, bytes]:
    kind = rows["image_format"][place].as_py()
    return {EXTENSIONS.get(kind, kind): rows["image"][place].as_py()}


def _read(rows: pa.Table, place: int) -> dict[str, bytes] | None:
    """Return a row's images by their extensions; None where they were not read now."""
    images: Sequence[bytes] | None = rows[IMAGES.name][place].as_py()
    if images is None:
        return None
    if len(images) == 1:
        return {_extension(images[0]): images[0]}
    return {f"{index}.{_extension(image)}": image for index, image in enumerate(images)}


def _images_in(tar: bytes) -> dict[int, dict[str, bytes]]:
    """Return the images of a part's tar by their places and extensions."""
    images: dict[int, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            name, _, extension = member.name.partition(".")
            if extension not in ("txt", "json") and (file := archive.extractfile(member)):
                images.setdefault(int(name.partition("-")[2]), {})[extension] = file.read()
    return images


def _json(row: pa.Table) -> bytes:
    values = {name: _plain(value) for name, value in row.to_pylist()[0].items()}
    return json.dumps(values, ensure_ascii=False, allow_nan=False, default=str).encode()


def _extension(image: bytes) -> str:
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "webp"
    if image[4:8] == b"ftyp":
        return "avif" if b"avi" in image[8:32] else "heic"
    return next((extension for signature, extension in SIGNATURES if image.startswith(signature)), "ppm")


def _has_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    if kind.num_fields:
        return any(_has_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return "binary" in str(kind)  # there are four kinds of it


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: it has no word for numbers that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
