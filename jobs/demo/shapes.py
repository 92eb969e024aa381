"""The words and geometry of the demo's shapes: kinds, colours, and how two shapes lie to each other."""

from dataclasses import dataclass

KINDS = ("circle", "rectangle", "triangle")
# The eight colours of easy-VQA.
COLORS = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    """One shape: one of KINDS, one of COLORS, and its (left, top, right, bottom) in pixels."""

    kind: str
    color: str
    box: Box

    @property
    def name(self) -> str:
        """What a caption calls it."""
        return f"{self.color} {self.kind}"

    @property
    def center(self) -> tuple[float, float]:
        """The middle of its box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def relation(first: Shape, second: Shape) -> str:
    """Say where the first shape is, seen from the second: along the axis on which they lie further apart."""
    (x1, y1), (x2, y2) = first.center, second.center
    if abs(x1 - x2) >= abs(y1 - y2):
        return "left of" if x1 < x2 else "right of"
    return "above" if y1 < y2 else "below"
