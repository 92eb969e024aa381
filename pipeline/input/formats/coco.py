"""Read COCO annotations: `images` are rows, and what `annotations` say of each are its captions and categories.

The layout is that of cocodataset.org, "Data format"; boxes and outlines are left where they are.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.input.formats.rows import RowError, parse_object

IMAGES, ANNOTATIONS, CATEGORIES = "images", "annotations", "categories"
TEXTS = pa.list_(pa.string())


def is_coco(arrays: Collection[str]) -> bool:
    """Say whether a file with these arrays of objects is one of COCO."""
    return IMAGES in arrays and ANNOTATIONS in arrays


def fields(annotations: Mapping[str, pa.DataType], has_categories: bool) -> dict[str, pa.DataType]:
    """Return the columns that annotations with some fields give their images."""
    found = {"captions": TEXTS} if "caption" in annotations else {}
    return found | ({"categories": TEXTS} if has_categories and "category_id" in annotations else {})


class Annotations:
    """The captions and categories of every image of a file, in memory: the texts themselves and little more."""

    def __init__(self, elements: Iterable[tuple[str | None, bytes]]) -> None:
        """Take the elements of the file's arrays, in any order: the array's name and the bytes of each."""
        names: dict[Any, str] = {}
        captions: dict[str, list[str]] = {}
        categories: dict[str, list[Any]] = {}
        for array, data in elements:
            if array not in (ANNOTATIONS, CATEGORIES):
                continue
            try:
                values = parse_object(data, "the annotation")
            except RowError:
                continue
            if array == CATEGORIES:
                names[values.get("id")] = str(values.get("name"))
                continue
            image = str(values.get("image_id"))
            if isinstance(values.get("caption"), str):
                captions.setdefault(image, []).append(values["caption"])
            if "category_id" in values and values["category_id"] not in categories.setdefault(image, []):
                categories[image].append(values["category_id"])
        self._captions = captions
        self._categories = {image: [names.get(one, str(one)) for one in found] for image, found in categories.items()}

    def of(self, image: Any) -> dict[str, list[str]]:
        """Return what is said of the image with an id."""
        found = {"captions": self._captions.get(str(image)), "categories": self._categories.get(str(image))}
        return {name: texts for name, texts in found.items() if texts is not None}
