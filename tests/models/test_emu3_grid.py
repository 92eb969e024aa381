"""A picture's tokens follow one grammar, whatever its size: codes are chosen, everything else comes by itself."""

import pytest

from models.emu3.grid import Ends, Grid, PictureGrammar, grid_for
from models.types import BadRequest

ENDS = Ends(line=100, frame=101, image=102, text=103)
GRIDS = [Grid(1, 1), Grid(1, 2), Grid(2, 1), Grid(3, 2), Grid(2, 5), Grid(7, 7)]


def grammar(grid: Grid) -> PictureGrammar:
    return PictureGrammar(grid, ENDS, range(100))


def emitted(grid: Grid) -> tuple[list[int], int]:
    """Emit a picture whose n-th chosen token is n; return all tokens and how many were chosen."""
    ids: list[int] = []
    chosen = 0
    while not grammar(grid).is_over(len(ids)):
        ids.append(chosen)
        chosen += 1
        ids += grammar(grid).forced(len(ids))
    return ids, chosen


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_picture_is_its_lines_and_three_tokens_at_the_end(grid: Grid) -> None:
    ids, chosen = emitted(grid)
    expected: list[int] = []
    for row in range(grid.rows):
        expected += [*range(row * grid.columns, (row + 1) * grid.columns), ENDS.line]
    assert ids == [*expected, ENDS.frame, ENDS.image, ENDS.text]
    assert (len(ids), chosen) == (grid.num_tokens, grid.rows * grid.columns)
    assert grid.chosen(ids).tolist() == [
        list(range(row * grid.columns, (row + 1) * grid.columns)) for row in range(grid.rows)
    ]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_schedule_is_the_authors_rule_place_by_place(grid: Grid) -> None:
    ids, _ = emitted(grid)
    line = grid.columns + 1
    for k, found in enumerate(ids, start=1):  # counted from the image token, as their script does
        if k <= line * grid.rows and k % line == 0:
            assert found == ENDS.line
        elif k > line * grid.rows:
            assert found == {1: ENDS.frame, 2: ENDS.image, 3: ENDS.text}[k - line * grid.rows]
        else:
            assert found < ENDS.line


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_picture_that_stopped_anywhere_goes_on_alike(grid: Grid) -> None:
    ids, _ = emitted(grid)
    for stop in range(len(ids)):
        following = grammar(grid).forced(stop)
        assert tuple(ids[stop : stop + len(following)]) == following
        assert following or ids[stop] < ENDS.line


@pytest.mark.parametrize(("ratio", "area", "grid", "tokens"), [
    ("1:1", 518400, Grid(90, 90), 8193), ("16:9", 518400, Grid(68, 120), 8231), ("9:16", 518400, Grid(120, 68), 8283),
    ("4:3", 518400, Grid(78, 104), 8193), ("3:2", 518400, Grid(73, 110), 8106), ("1:1", 262144, Grid(64, 64), 4163),
])  # fmt: skip
def test_ratio_and_area_give_the_authors_grids(ratio: str, area: int, grid: Grid, tokens: int) -> None:
    assert grid_for(ratio, area) == grid
    assert grid.num_tokens == tokens


@pytest.mark.parametrize(("ratio", "area", "told"), [
    ("wide", 518400, "found ratio 'wide', expected width to height"), ("0:1", 518400, "found ratio '0:1'"),
    ("16:9:1", 518400, "expected width to height"), ("900:1", 4096, "a picture of 0 x 240 codes"),
    ("1:1", 0, "found an area of 0 pixels"), ("1:1", 1, "a picture of 0 x 0 codes"),
    ("1:1", -64, "found an area of -64 pixels"), ("1:1", 10**400, "found an area of 1000"), ("", 64, "found ratio ''"),
    ("nan:1", 518400, "found ratio 'nan:1'"), ("inf:1", 518400, "found ratio 'inf:1'"), ("1:0", 64, "ratio '1:0'"),
    ("1:0.0", 64, "ratio '1:0.0'"), ("-1:1", 64, "ratio '-1:1'"), ("1e9:1", 518400, "found ratio '1e9:1'"),
    ("999999999:1", 518400, r"a picture of 0 x \d+ codes"), ("9" * 400 + ":1", 64, "found ratio '99"),
    (f"0.{'0' * 200}1:0.{'0' * 200}1", 64, "found ratio '0.0"), ("16:9\n:1", 64, "ratio"),
])  # fmt: skip
def test_what_is_no_picture_is_named(ratio: str, area: int, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        grid_for(ratio, area)


@pytest.mark.parametrize("ratio", ["999999999.999999999:999999999.999999999", "0.000000001:0.000000001", " 7.5:7.5 "])
def test_the_longest_sides_are_numbers_still(ratio: str) -> None:
    assert grid_for(ratio, 4096) == Grid(8, 8)
    assert grid_for(ratio, 2**50) == Grid(2**22, 2**22)
