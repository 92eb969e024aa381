"""Look at some of an input's images for a plan: which formats they have, and how large they are.

Only their headers are read. What is odd about images, and what cannot be decoded, the sample that is timed tells.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.images import look_at
from pipeline.input.read_settings import ReadSettings
from pipeline.input.unit import Unit
from pipeline.job import Job
from pipeline.steps.read import read_job_rows

# So many tell formats and sizes within a few percent; where fetching them takes long, fewer.
MOST_ROWS, MOST_S = 512, 15.0


@dataclass(frozen=True)
class Pictures:
    """Some images of an input.

    Attributes:
        images: How many were looked at.
        formats: How many have each format; `none` counts those that are no image that can be opened.
        least_bytes: Of the smallest file.
        median_bytes: Of the one in the middle.
        most_bytes: Of the largest.
        least_pixels: Width and height of the one with the smallest area; (0, 0) where none could be opened.
        median_pixels: Of the one in the middle.
        most_pixels: Of the one with the largest.
    """

    images: int
    formats: Mapping[str, int]
    least_bytes: int
    median_bytes: int
    most_bytes: int
    least_pixels: tuple[int, int]
    median_pixels: tuple[int, int]
    most_pixels: tuple[int, int]


def look_at_pictures(
    slices: Sequence[Unit], sources: Mapping[str, ReadSettings], job: Job, rows: int = MOST_ROWS
) -> Pictures | None:
    """Look at the images of some rows; None where these have none.

    Args:
        slices: Where rows are, in the order in which they are wanted.
        sources: How to reach each source of the input.
        job: What is asked.
        rows: At most so many, but whole slices; fewer where that takes longer than MOST_S.
    """
    images: list[bytes] = []
    began, seen = time.monotonic(), 0
    for unit in slices:
        if seen >= rows or time.monotonic() - began > MOST_S:
            break
        block = read_job_rows(unit, job, sources)
        seen += block.num_rows
        images += [image for several in block.column("images").to_pylist() for image in several or ()]
    return _pictures(images) if images else None


def _pictures(images: Sequence[bytes]) -> Pictures:
    looks = [look_at(image) for image in images]
    opened = [look for look in looks if look is not None]
    sizes = sorted(map(len, images))
    pixels = sorted(((look.width, look.height) for look in opened), key=lambda sides: sides[0] * sides[1]) or [(0, 0)]
    formats = Counter("none" if look is None else look.format for look in looks)
    return Pictures(
        images=len(images),
        formats=dict(formats.most_common()),
        least_bytes=sizes[0],
        median_bytes=sizes[len(sizes) // 2],
        most_bytes=sizes[-1],
        least_pixels=pixels[0],
        median_pixels=pixels[len(pixels) // 2],
        most_pixels=pixels[-1],
    )
