"""The grammar of a picture's tokens: rows of chosen codes, each closed by a token that comes by itself.

After `<|image token|>` a picture of H rows and W columns is H times W codes and an end of line, then end of frame, end
of image, end of text: H (W + 1) + 3 tokens, of which only the H W codes are chosen. Knows neither torch nor the engine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.types import BadRequest

# So many digits and no more, lest a product of sides be no number.
_SIDE = r"(\d{1,9}(?:\.\d{1,9})?)"
_RATIO = re.compile(f"{_SIDE}:{_SIDE}", re.ASCII)
# Of larger numbers a float does not know them all.
_MOST_PIXELS = 2**53
# In the released checkpoints.
PIXELS_PER_CODE = 8


@dataclass(frozen=True)
class Ends:
    """The ids of the tokens that come by themselves."""

    line: int
    frame: int
    image: int
    text: int


@dataclass(frozen=True)
class Grid:
    """How many codes a picture has, in rows and columns; what a code stands for is the VQ-VAE's affair."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise BadRequest(f"a picture of {self.rows} x {self.columns} codes: expected at least 1 x 1")

    @property
    def num_tokens(self) -> int:
        """Tokens that are emitted, from the first code to the end of text."""
        return self.rows * (self.columns + 1) + 3

    def chosen(self, token_ids: Sequence[int]) -> NDArray[np.int64]:
        """Return the chosen ids (rows, columns) among all emitted ones, what came by itself left out."""
        lines = np.asarray(token_ids[: self.num_tokens - 3], np.int64).reshape(self.rows, self.columns + 1)
        return lines[:, : self.columns]


def grid_for(ratio: str, area: int, pixels_per_code: int = PIXELS_PER_CODE) -> Grid:
    """Return the grid of a picture.

    The sides are those of the authors' script: f = sqrt(area / (w h)), and each side times f in whole codes.

    Args:
        ratio: Width to height, such as `16:9`.
        area: Pixels of the picture, about.
        pixels_per_code: Side of what one code stands for.

    Raises:
        BadRequest: The ratio is none, or the picture would have no code.
    """
    match = _RATIO.fullmatch(ratio.strip())
    width, height = (float(side) for side in match.groups()) if match else (0.0, 0.0)
    if not width or not height:
        raise BadRequest(f"found ratio {ratio!r}, expected width to height, such as '16:9'")
    if not 1 <= area <= _MOST_PIXELS:
        expected = f"at least one code, {pixels_per_code**2} pixels, and at most {_MOST_PIXELS}"
        raise BadRequest(f"found an area of {area} pixels, expected {expected}")
    factor = (area / (width * height)) ** 0.5
    return Grid(round(height * factor / pixels_per_code), round(width * factor / pixels_per_code))


@dataclass(frozen=True)
class PictureGrammar:
    """The grammar of one picture, as the engine asks for it; see models.engine.decoder.Grammar.

    Attributes:
        grid: Its size.
        ends: What comes by itself.
        choices: The ids of all codes.
    """

    grid: Grid
    ends: Ends
    choices: range

    @property
    def line(self) -> tuple[int, int]:
        """How many codes a line has, and the id that closes it."""
        return self.grid.columns, self.ends.line

    def forced(self, num_emitted: int) -> tuple[int, ...]:
        """Return the ids that follow so many tokens by themselves, up to the next choice or the end."""
        rows, columns, last = self.grid.rows, self.grid.columns, self.grid.num_tokens - 3
        closing = (self.ends.frame, self.ends.image, self.ends.text)
        lines, place = divmod(num_emitted, columns + 1)
        if num_emitted >= last:
            return closing[num_emitted - last :]
        if place < columns:
            return ()
        return (self.ends.line, *closing) if lines == rows - 1 else (self.ends.line,)

    def is_over(self, num_emitted: int) -> bool:
        """Whether the picture has all its tokens."""
        return num_emitted >= self.grid.num_tokens
