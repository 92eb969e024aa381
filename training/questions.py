"""Questions about a scene, with their one right answer: easy-VQA's own 107 texts and a few about two shapes.

The texts of easy-VQA's kinds are spelled exactly as in its train split (a test compares them). Answers are drawn
evenly, yes and no alike, and questions about shapes more often than about colours: they are the harder ones.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from jobs.demo.shapes import COLORS, KINDS, OPPOSITE, Shape, relation
from training.scenes import Scene

CAPTION_PROMPT = "Describe this image."

PRESENCE = (
    "is there a {} shape?",
    "is there a {} shape in the image?",
    "is a {} shape present?",
    "does the image contain a {} shape?",
)
ABSENCE = (
    "is there not a {} shape?",
    "is there not a {} shape in the image?",
    "is no {} shape present?",
    "does the image not contain a {} shape?",
)
COLOR = ("what color is the {}?", "what is the color of the {}?")
KIND = ("what shape is in the image?", "what shape is present?", "what shape does the image contain?")
COUNT = "how many shapes are there?"
NUMBERS = ("zero", "one", "two")


class Pair(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


def caption(scene: Scene) -> Pair:
    """Describe the scene: `a red circle`, or `a red circle left of a blue rectangle`."""
    first = scene.shapes[0]
    if len(scene.shapes) == 1:
        return Pair(CAPTION_PROMPT, f"a {first.name}")
    second = scene.shapes[1]
    return Pair(CAPTION_PROMPT, f"a {first.name} {relation(first, second)} a {second.name}")


def ask(scene: Scene, rng: random.Random, negated: float = 0.5) -> Pair:
    """Ask one question about a scene, of a kind that its number of shapes allows.

    Args:
        scene: What is asked about.
        rng: Chooses.
        negated: Share of `is there not a …?` among questions of what is there.
    """
    kinds, weights = zip(*(ABOUT_ONE if len(scene.shapes) == 1 else ABOUT_TWO), strict=True)
    chosen: Callable[[Scene, random.Random], Pair] = rng.choices(kinds, weights)[0]
    question, answer = chosen(scene, rng)
    if question in NEGATIVES and rng.random() < negated:
        return Pair(NEGATIVES[question], "no" if answer == "yes" else "yes")
    return Pair(question, answer)


def vocabulary() -> list[str]:
    """Return texts that hold every word of every question and answer, for the tokenizer to learn from."""
    shapes = [Shape(kind, color, (0, 0, 1, 1)) for kind in KINDS for color in COLORS]
    texts = [CAPTION_PROMPT, COUNT, *NUMBERS, *KIND, *KINDS, *COLORS, "yes", "no"]
    texts += [_noun(text, word) for text in (*PRESENCE, *ABSENCE) for word in (*KINDS, *COLORS)]
    texts += [text.format(word) for text in COLOR for word in (*KINDS, "shape")]
    for shape in shapes:
        texts += [f"what is the {shape.color} shape?", f"a {shape.name}", f"is there a {shape.name}?"]
        texts += [f"is the {shape.name} {position} the {shape.name}?" for position in OPPOSITE]
        texts += [f"what is {position} the {shape.name}?" for position in OPPOSITE]
    return texts


def _is_shape_there(scene: Scene, rng: random.Random) -> Pair:
    return _presence(rng, [shape.kind for shape in scene.shapes], list(KINDS))


def _is_color_there(scene: Scene, rng: random.Random) -> Pair:
    return _presence(rng, [shape.color for shape in scene.shapes], list(COLORS))


def _is_both_there(scene: Scene, rng: random.Random) -> Pair:
    """Ask for a shape by colour and kind; what is not there is half there as often as not."""
    shape = rng.choice(scene.shapes)
    if rng.random() < 0.5:
        return Pair(f"is there a {shape.name}?", "yes")
    kind, color = rng.choice(((rng.choice(KINDS), shape.color), (shape.kind, rng.choice(list(COLORS)))))
    is_there = any((other.kind, other.color) == (kind, color) for other in scene.shapes)
    return Pair(f"is there a {color} {kind}?", "yes" if is_there else "no")


def _presence(rng: random.Random, there: list[str], words: list[str]) -> Pair:
    is_there = rng.random() < 0.5
    choices = [word for word in words if (word in there) == is_there]
    return Pair(_noun(rng.choice(PRESENCE), rng.choice(choices)), "yes" if is_there else "no")


def _noun(text: str, word: str) -> str:
    """Fill in a kind (`a circle`) or a colour (`a red shape`)."""
    return text.replace("{} shape", word) if word in KINDS else text.format(word)


def _which_color(scene: Scene, rng: random.Random) -> Pair:
    shape = rng.choice(scene.shapes)
    is_only = sum(other.kind == shape.kind for other in scene.shapes) == 1
    if not is_only:
        return _is_color_there(scene, rng)
    names = [shape.kind, "shape"] if len(scene.shapes) == 1 else [shape.kind]
    return Pair(rng.choice(COLOR).format(rng.choice(names)), shape.color)


def _which_kind(scene: Scene, rng: random.Random) -> Pair:
    shape = rng.choice(scene.shapes)
    is_only = sum(other.color == shape.color for other in scene.shapes) == 1
    if not is_only:
        return _is_shape_there(scene, rng)
    texts = KIND if len(scene.shapes) == 1 else ()
    return Pair(rng.choice([*texts, f"what is the {shape.color} shape?"]), shape.kind)


def _how_many(scene: Scene, rng: random.Random) -> Pair:
    return Pair(COUNT, NUMBERS[len(scene.shapes)])


def _where(scene: Scene, rng: random.Random) -> Pair:
    first, second = rng.sample(scene.shapes, 2)
    position = relation(first, second)
    if rng.random() < 0.5:
        return Pair(f"is the {first.name} {position} the {second.name}?", "yes")
    return Pair(f"is the {first.name} {OPPOSITE[position]} the {second.name}?", "no")


def _what_is_there(scene: Scene, rng: random.Random) -> Pair:
    first, second = rng.sample(scene.shapes, 2)
    return Pair(f"what is {relation(first, second)} the {second.name}?", f"a {first.name}")


NEGATIVES = {
    _noun(presence, word): _noun(absence, word)
    for presence, absence in zip(PRESENCE, ABSENCE, strict=True)
    for word in (*KINDS, *COLORS)
}
ABOUT_ONE = (
    (_is_shape_there, 0.36),
    (_is_color_there, 0.24),
    (_which_kind, 0.18),
    (_which_color, 0.14),
    (_is_both_there, 0.05),
    (_how_many, 0.03),
)
ABOUT_TWO = (
    (_is_shape_there, 0.2),
    (_is_color_there, 0.1),
    (_which_kind, 0.15),
    (_which_color, 0.15),
    (_is_both_there, 0.1),
    (_how_many, 0.05),
    (_where, 0.1),
    (_what_is_there, 0.15),
)
