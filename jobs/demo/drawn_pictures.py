"""Measure the demo's drawn pictures by rule, and say how far the model that checked them agrees.

The rule's verdicts are not added to the part files, which belong to the pipeline.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.demo.picture_rule import PictureVerdict, check_picture, find_shapes, read_caption
from jobs.report.gallery import thumbnail
from jobs.report.part_files import open_parts
from jobs.report.results import look_for_parts
from jobs.scoring.summary import score_table, summarize_scores
from models.images import decode_image
from pipeline import Store

RULE = "rule/shapes_by_colour_and_outline"
COLUMNS = ("caption_in", "image", "keep")
ALL_WRONG = PictureVerdict(colors_right=False, relation_right=False, kinds_right=False)


@dataclass(frozen=True)
class DrawnPicture:
    """One picture with both verdicts.

    Attributes:
        text: What was to be drawn.
        picture: A data URI; None if nothing was drawn.
        verdict: What the rule says of the whole text.
        shapes: What it finds in the picture, such as `red circle`; of an outline that it does not know only the colour.
        is_kept: What the model that checked says; None if it was not asked.
    """

    text: str
    picture: str | None
    verdict: PictureVerdict
    shapes: tuple[str, ...]
    is_kept: bool | None

    @property
    def shows_named_shapes(self) -> bool:
        """Whether the rule finds all named shapes, whatever else is there; the model was asked just that."""
        return {" ".join(name) for name in read_caption(self.text)[0]} <= set(self.shapes)

    @property
    def faults(self) -> list[str]:
        """What the rule finds wrong, in words; an outline that is none of the known ones is wrong too."""
        if not self.verdict.colors_right:
            extra = len(self.shapes) - len(read_caption(self.text)[0])
            return ["colours" if extra == 0 else "too many" if extra > 0 else "too few"]
        wrong = {"place": self.verdict.relation_right is False, "outline": self.verdict.kinds_right is not True}
        return [word for word, is_wrong in wrong.items() if is_wrong]


@dataclass(frozen=True)
class DrawnPictures:
    """All pictures of a run in the order of its rows, and what can be counted of them."""

    pictures: Sequence[DrawnPicture]

    @property
    def scores(self) -> Mapping[str, Mapping[str, Any]]:
        """Shares with their intervals, as in report.json; pictures that failed are wrong."""
        verdicts = [picture.verdict for picture in self.pictures]
        agrees = (None if p.is_kept is None else p.is_kept == p.shows_named_shapes for p in self.pictures)
        return {
            "colours": _share(verdict.colors_right for verdict in verdicts),
            "places": _share(verdict.relation_right for verdict in verdicts),
            "outlines": _share(verdict.kinds_right is True for verdict in verdicts),
            "agreement": _share(agrees),
        }

    def num_kept(self, *, shows_named_shapes: bool) -> tuple[int, int]:
        """Return how many pictures that show their shapes by rule, or do not, are kept, and how many were checked."""
        group = [picture for picture in self.pictures if picture.shows_named_shapes == shows_named_shapes]
        kept = [picture.is_kept for picture in group if picture.is_kept is not None]
        return sum(kept), len(kept)


def read_drawn_pictures(uri: str) -> DrawnPictures:
    """Read the pictures of a finished run back and measure each.

    Raises:
        ReportError: Nothing is finished there.
        StorageError: It cannot be read.
    """
    store = Store(uri)
    standing, _ = look_for_parts(store)
    parts = open_parts(store, standing.files)
    return DrawnPictures([_measure(row) for part in parts for row in part.read(COLUMNS).to_pylist()])


def _measure(row: Mapping[str, Any]) -> DrawnPicture:
    text, picture = row["caption_in"], row["image"]
    if picture is None:
        return DrawnPicture(text, None, ALL_WRONG, (), None)
    pixels = np.asarray(decode_image(picture))
    shapes = tuple(shape.name.strip() for shape in find_shapes(pixels))
    return DrawnPicture(text, thumbnail(picture), check_picture(pixels, text), shapes, row["keep"])


def _share(verdicts: Iterable[bool | None]) -> dict[str, Any]:
    return summarize_scores(RULE, score_table(pa.array(verdicts, pa.bool_())))
