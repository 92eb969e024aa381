"""What the toy checkpoints learn from: scenes say what they show, questions have one right answer."""

import importlib
import random

import numpy as np
import pytest
from PIL import Image

from jobs.demo.shapes import COLORS, KINDS, Shape, relation
from models.images import decode_image
from training.questions import ask, caption
from training.scenes import Scene, draw_scene

easy_vqa = pytest.importorskip("easy_vqa", reason="the training data are in the extra `train`")
dataset = importlib.import_module("training.dataset")


@pytest.fixture(scope="module")
def easy_scenes() -> list[Scene]:
    return dataset.load_scenes()


BLANK = Image.new("RGB", (64, 64))


def scene_of(*shapes: Shape) -> Scene:
    return Scene(BLANK, shapes, np.zeros((64, 64), np.uint8))


def any_shape(rng: random.Random) -> Shape:
    return Shape(rng.choice(KINDS), rng.choice(list(COLORS)), (0, 0, 1, 1))


RED_CIRCLE = Shape("circle", "red", (0, 0, 10, 10))
BLUE_RECTANGLE = Shape("rectangle", "blue", (30, 0, 40, 20))


def test_a_caption_names_the_left_shape_first() -> None:
    assert caption(scene_of(RED_CIRCLE)).answer == "a red circle"
    assert caption(scene_of(RED_CIRCLE, BLUE_RECTANGLE)).answer == "a red circle left of a blue rectangle"


@pytest.mark.parametrize("num_shapes", [1, 2])
def test_the_same_seed_draws_the_same_scene(num_shapes: int) -> None:
    first, second = (draw_scene(random.Random(7), num_shapes) for _ in range(2))
    assert first.shapes == second.shapes
    assert first.picture.tobytes() == second.picture.tobytes()


def test_every_shape_owns_pixels_of_its_own_colour() -> None:
    rng = random.Random(1)
    for _ in range(50):
        scene = draw_scene(rng, 2)
        pixels = np.asarray(scene.picture)
        for place, shape in enumerate(scene.shapes, start=1):
            owned = pixels[scene.owner == place]
            assert len(owned) > 0
            assert (np.median(owned, axis=0) == COLORS[shape.color]).all()


def test_drawn_pairs_are_named_in_reading_order_and_differ() -> None:
    rng = random.Random(2)
    for _ in range(200):
        first, second = draw_scene(rng, 2).shapes
        assert relation(first, second) in ("left of", "above")
        assert first.name != second.name


def test_easy_vqa_kinds_are_asked_word_for_word() -> None:
    rng = random.Random(3)
    asked = {ask(scene_of(any_shape(rng)), rng).question for _ in range(8_000)}
    missing = set(easy_vqa.get_train_questions()[0]) - asked
    assert not missing


def test_answers_agree_with_easy_vqas_own() -> None:
    """Ask about train pictures as the training does, and look the same question up in the train split."""
    told = dataset._known_shapes()
    gold = {(text, i): answer for text, answer, i in zip(*easy_vqa.get_train_questions(), strict=True)}
    rng, compared = random.Random(4), 0
    for picture, (kind, color) in list(told.items())[:1_000]:
        scene = scene_of(Shape(kind, color, (0, 0, 1, 1)))
        for question, answer in (ask(scene, rng) for _ in range(20)):
            if (question, picture) in gold:
                compared += 1
                assert gold[question, picture] == answer
    assert compared > 500


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what is left of the blue rectangle?", "a red circle"),
        ("what is right of the red circle?", "a blue rectangle"),
        ("is the red circle left of the blue rectangle?", "yes"),
        ("is the red circle right of the blue rectangle?", "no"),
        ("how many shapes are there?", "two"),
        ("what color is the circle?", "red"),
        ("is there a triangle?", "no"),
        ("is no triangle present?", "yes"),
    ],
)
def test_questions_about_two_shapes_have_their_right_answer(question: str, answer: str) -> None:
    rng = random.Random(5)
    asked = dict(ask(scene_of(RED_CIRCLE, BLUE_RECTANGLE), rng) for _ in range(4_000))
    assert asked[question] == answer


def test_yes_and_no_are_asked_alike() -> None:
    rng = random.Random(6)
    answers = [ask(scene_of(any_shape(rng)), rng).answer for _ in range(4_000)]
    assert 0.9 < answers.count("yes") / answers.count("no") < 1.1


def test_easy_vqa_pictures_know_their_shape_pixels(easy_scenes: list[Scene]) -> None:
    """The shape's own pixels have the colour that the questions tell."""
    for scene in easy_scenes[:200]:
        owned = np.asarray(scene.picture)[scene.owner == 1]
        assert np.abs(np.median(owned, axis=0) - COLORS[scene.shapes[0].color]).max() < 64


def test_training_never_touches_the_held_out_pictures(easy_scenes: list[Scene]) -> None:
    pictures, asked = dataset.load_held_out()
    assert min(pictures) == dataset.FIRST_HELD_OUT
    assert {question.picture for question in asked} <= set(pictures)
    shown = {scene.picture.tobytes() for scene in easy_scenes}
    assert len(shown) > 3_000
    assert not shown & {decode_image(picture).tobytes() for picture in pictures.values()}
