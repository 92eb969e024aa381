"""Look by rule at what the demo has drawn, and say how far the model that looked agrees. It knows no page.

The rule's verdicts stand in no part: those are the pipeline's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.demo.picture_rule import Drawn, check_picture, find_shapes, read_caption
from jobs.report.gallery import thumbnail
from jobs.report.parts import open_parts
from jobs.report.results import look_for_parts
from jobs.scoring.summary import score_table, summarize_scores
from models.images import decode_image
from pipeline.storage.store import Store

RULE = "rule/shapes_by_colour_and_outline"
SEEN = ("caption_in", "image", "keep")
NOTHING = Drawn(colors_right=False, relation_right=False, kinds_right=False)


@dataclass(frozen=True)
class Drawing:
    """One picture with both verdicts.

    Attributes:
        text: What was to be drawn.
        picture: A data URI; None if nothing was drawn.
        drawn: What the rule says of the whole text.
        shapes: What it finds in the picture, such as `red circle`; of an outline that it does not know only the colour.
        is_kept: What the model that looked says; None if it was not asked.
    """

    text: str
    picture: str | None
    drawn: Drawn
    shapes: tuple[str, ...]
    is_kept: bool | None

    @property
    def has_named(self) -> bool:
        """Whether the rule finds all named shapes, whatever else is there: just what the model was asked."""
        return {" ".join(name) for name in read_caption(self.text)[0]} <= set(self.shapes)

    @property
    def faults(self) -> list[str]:
        """What the rule finds wrong, in words; an outline that is none of the known ones is wrong too."""
        if not self.drawn.colors_right:
            more = len(self.shapes) - len(read_caption(self.text)[0])
            return ["colours" if more == 0 else "too many" if more > 0 else "too few"]
        wrong = {"place": self.drawn.relation_right is False, "outline": self.drawn.kinds_right is not True}
        return [word for word, is_wrong in wrong.items() if is_wrong]


@dataclass(frozen=True)
class Drawings:
    """All pictures of a run in the order of its rows, and what can be counted of them."""

    drawings: Sequence[Drawing]

    @property
    def scores(self) -> Mapping[str, Mapping[str, Any]]:
        """Shares with their intervals, as in report.json; pictures that failed are wrong."""
        seen = [one.drawn for one in self.drawings]
        return {
            "colours": _share(drawn.colors_right for drawn in seen),
            "places": _share(drawn.relation_right for drawn in seen),
            "outlines": _share(drawn.kinds_right is True for drawn in seen),
            "agreement": _share(None if one.is_kept is None else one.is_kept == one.has_named for one in self.drawings),
        }

    def num_kept(self, *, has_named: bool) -> tuple[int, int]:
        """Return how many of those that have their shapes by rule, or have not, are kept, and of how many."""
        kept = [one.is_kept for one in self.drawings if one.has_named == has_named and one.is_kept is not None]
        return sum(kept), len(kept)


def look_at_drawings(uri: str) -> Drawings:
    """Read a finished run's pictures back and look at each.

    Raises:
        ReportError: Nothing is finished there.
        StorageError: It cannot be read.
    """
    store = Store(uri)
    look_for_parts(store)
    return Drawings([_look(row) for part in open_parts(store) for row in part.read(SEEN).to_pylist()])


def _look(row: Mapping[str, Any]) -> Drawing:
    text, picture = row["caption_in"], row["image"]
    if picture is None:
        return Drawing(text, None, NOTHING, (), None)
    pixels = np.asarray(decode_image(picture))
    shapes = tuple(shape.name.strip() for shape in find_shapes(pixels))
    return Drawing(text, thumbnail(picture), check_picture(pixels, text), shapes, row["keep"])


def _share(verdicts: Iterable[bool | None]) -> dict[str, Any]:
    return summarize_scores(RULE, score_table(pa.array(verdicts, pa.bool_())))
