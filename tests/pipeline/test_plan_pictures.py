"""The formats and sizes of some of an input's images, for a plan."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.input.read_settings import ReadSettings
from pipeline.preflight import pictures
from pipeline.preflight.pictures import look_at_pictures
from pipeline.preflight.timing import sample_of
from tests.pictures import encoded, plain
from tests.pipeline.inputs import plan_units
from tests.pipeline.toys import ToyJob


def test_formats_and_sizes_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a.jpg": plain("red", (40, 30), "JPEG"),
        "b.jpg": plain("red", (20, 10), "JPEG"),
        "c.png": encoded(Image.new("RGBA", (400, 300))),
        "d.png": b"no image",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    read = ReadSettings(uri=str(tmp_path))
    slices = sample_of(plan_units(read, 2), 100)
    found = look_at_pictures(slices, {"": read}, ToyJob())
    assert found is not None
    assert (found.images, found.formats) == (4, {"JPEG": 2, "PNG": 1, "none": 1})
    assert (found.least_pixels, found.median_pixels, found.most_pixels) == ((20, 10), (40, 30), (400, 300))
    sizes = sorted(map(len, files.values()))
    assert (found.least_bytes, found.median_bytes, found.most_bytes) == (sizes[0], sizes[2], sizes[3])
    fewer = look_at_pictures(slices, {"": read}, ToyJob(), rows=1)
    assert fewer is not None and fewer.images == 2, "one slice"
    monkeypatch.setattr(pictures, "MOST_S", -1.0)
    assert look_at_pictures(slices, {"": read}, ToyJob()) is None
