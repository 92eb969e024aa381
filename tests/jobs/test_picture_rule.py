"""The rule that says whether a drawn picture shows what its caption says."""

import random

import numpy as np
import pytest

from jobs.demo.picture_rule import PictureVerdict, check_picture, find_shapes
from jobs.demo.shapes import COLORS, OPPOSITE, Shape
from training.questions import caption
from training.scenes import Scene, draw_scene, paint

GROUND = (240, 250, 235)
RIGHT = PictureVerdict(colors_right=True, relation_right=True, kinds_right=True)


def picture(*shapes: Shape) -> np.ndarray:
    return np.array(paint(shapes, (64, 64), GROUND).picture)


CIRCLE = Shape("circle", "red", (4, 20, 28, 44))
SQUARE = Shape("rectangle", "blue", (36, 22, 60, 46))
TRIANGLE = Shape("triangle", "red", (36, 4, 60, 25))


def told(scene: Scene) -> str:
    return caption(scene).answer


def test_real_scenes_are_right() -> None:
    rng = random.Random(1)
    scenes = [draw_scene(rng, 1 + n % 2) for n in range(200)]
    found = [check_picture(np.asarray(scene.picture), told(scene)) for scene in scenes]
    assert sum(one.colors_right for one in found) >= 196
    assert sum(one.relation_right is not False for one in found) >= 196
    assert sum(one.kinds_right is True for one in found) >= 192


def test_a_caption_of_one_shape_says_no_relation() -> None:
    assert check_picture(picture(CIRCLE), "a red circle") == PictureVerdict(True, None, True)


@pytest.mark.parametrize("color", COLORS)
def test_every_colour_is_told_from_every_other(color: str) -> None:
    shapes = find_shapes(picture(Shape("circle", color, (4, 20, 28, 44))))
    assert [shape.color for shape in shapes] == [color]
    for other in set(COLORS) - {color}:
        assert not check_picture(picture(Shape("circle", color, (4, 20, 28, 44))), f"a {other} circle").colors_right


def test_either_shape_may_be_named_first() -> None:
    drawn = picture(CIRCLE, SQUARE)
    assert check_picture(drawn, "a red circle left of a blue rectangle") == RIGHT
    assert check_picture(drawn, "a blue rectangle right of a red circle") == RIGHT


@pytest.mark.parametrize("place", ["right of", "above", "below"])
def test_another_relation_is_wrong(place: str) -> None:
    found = check_picture(picture(CIRCLE, SQUARE), f"a red circle {place} a blue rectangle")
    assert found == PictureVerdict(colors_right=True, relation_right=False, kinds_right=True)


@pytest.mark.parametrize(
    "shapes",
    [(), (CIRCLE,), (SQUARE,), (CIRCLE, SQUARE, Shape("circle", "teal", (20, 48, 34, 62))), (CIRCLE, TRIANGLE)],
    ids=["nothing", "one is missing", "the other is missing", "one too many", "another colour"],
)
def test_a_picture_of_other_colours_has_nothing_right(shapes: tuple[Shape, ...]) -> None:
    found = check_picture(picture(*shapes), "a red circle left of a blue rectangle")
    assert found == PictureVerdict(colors_right=False, relation_right=False, kinds_right=False)


def test_of_two_shapes_of_one_colour_their_outlines_tell_which_is_which() -> None:
    drawn = picture(CIRCLE, TRIANGLE)
    assert check_picture(drawn, "a red circle left of a red triangle") == RIGHT
    assert check_picture(drawn, "a red triangle left of a red circle").relation_right is False


@pytest.mark.parametrize("kind", ["rectangle", "triangle"])
def test_another_outline_is_wrong(kind: str) -> None:
    found = check_picture(picture(CIRCLE, SQUARE), f"a red {kind} left of a blue rectangle")
    assert found == PictureVerdict(colors_right=True, relation_right=True, kinds_right=False)


def test_of_an_outline_like_none_nothing_is_said() -> None:
    drawn = picture(CIRCLE)
    drawn[20:32, 4:16] = drawn[32:44, 16:28] = COLORS["red"]  # two opposite corners are not round
    assert check_picture(drawn, "a red circle").kinds_right is None


def test_noise_and_soft_rims_are_no_shapes() -> None:
    rng = np.random.default_rng(2)
    noisy = picture(CIRCLE, SQUARE) + rng.normal(0, 12, (64, 64, 3))
    noisy[::9, ::9] = 0
    found = check_picture(noisy.clip(0, 255).astype(np.uint8), "a red circle left of a blue rectangle")
    assert found.colors_right
    assert found.relation_right


@pytest.mark.parametrize("text", ["", "a red dog", "a pink circle", "a red circle near a blue circle", "red circle"])
def test_other_captions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected such as"):
        check_picture(picture(CIRCLE), text)


def test_opposites_are_both_known() -> None:
    drawn = picture(CIRCLE, SQUARE)
    right = [place for place in OPPOSITE if check_picture(drawn, f"a red circle {place} a blue rectangle") == RIGHT]
    assert right == ["left of"]


@pytest.mark.timeout(20)
def test_a_picture_in_pieces_is_wrong_at_once():
    pixels = np.full((64, 64, 3), 244, np.uint8)
    for number in range(16):
        y, x = divmod(number, 4)
        pixels[y * 16 : y * 16 + 8, x * 16 : x * 16 + 8] = (255, 0, 0)
    assert len(find_shapes(pixels)) == 16
    assert check_picture(pixels, "a red circle above a red rectangle") == PictureVerdict(False, False, False)
