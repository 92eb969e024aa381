"""GenEval: whether a picture shows what its prompt says, from the boxes that a detector found in it.

It knows boxes, their scores and colours, not the detector (Mask2Former) nor the judge of colours (CLIP ViT-L/14)
behind published numbers. Source: djghosh13/geneval af4902f, evaluate_images.py and summary_scores.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")

_MOST_BOXES = 16
# By how much of their sizes two objects may reach past each other without a relation between them.
_SLACK = 0.1


@dataclass(frozen=True)
class Box:
    """One object found: left, top, right and bottom in pixels, the detector's score, and its colour where asked."""

    corners: tuple[float, float, float, float]
    score: float
    color: str | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a picture is right, and what is wrong with it, in the official script's words."""

    correct: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """Shares of 0 to 1 over all pictures.

    Attributes:
        overall: The mean of the tasks' shares, each task counting the same: GenEval's headline.
        tasks: Each task's share of right pictures, in the order of their first picture.
        pictures: How many there are.
        prompts: How many prompts these were made from.
        correct_pictures: The share of right pictures.
        correct_prompts: The share of prompts with at least one right picture.
    """

    overall: float
    tasks: Mapping[str, float]
    pictures: int
    prompts: int
    correct_pictures: float
    correct_prompts: float


def boxes_that_count(boxes: Iterable[Box], *, counting: bool) -> list[Box]:
    """Return the boxes of one class that count: surest first, at most 16, with a score above 0.3 (counting: 0.9).

    Of two equally sure ones the later comes first.
    """
    least = 0.9 if counting else 0.3
    ordered = sorted(boxes, key=lambda box: box.score)[::-1]
    return [box for box in ordered if box.score > least][:_MOST_BOXES]


def decide(metadata: Mapping[str, Any], found: Mapping[str, Sequence[Box]]) -> Decision:
    """Compare a picture with its prompt's clauses.

    Args:
        metadata: A line of evaluation_metadata.jsonl: `tag`, `include` and, where given, `exclude`.
        found: All boxes by the class names of the prompts, weak ones too.

    Raises:
        ValueError: A colour is asked for of a box that has none.
    """
    objects = {name: boxes_that_count(boxes, counting=metadata["tag"] == "counting") for name, boxes in found.items()}
    reasons: list[str] = []
    groups: list[list[Box] | None] = []
    for clause in metadata.get("include", []):
        group = objects.get(clause["class"], [])[: clause["count"]]
        faults = _faults(clause, group, groups)
        reasons += faults
        groups.append(None if faults else group)
    for clause in metadata.get("exclude", []):
        count = len(objects.get(clause["class"], []))
        if count >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {count}")
    return Decision(not reasons, tuple(reasons))


def summarize(rows: Iterable[tuple[str, str, bool]]) -> Summary:
    """Count the decisions on many pictures.

    Args:
        rows: For each picture its tag, what its prompt is told apart by (the metadata's text), and whether it is right.

    Raises:
        ValueError: There are no rows.
    """
    tasks: dict[str, list[bool]] = {}
    prompts: dict[str, bool] = {}
    for tag, prompt, correct in rows:
        tasks.setdefault(tag, []).append(correct)
        prompts[prompt] = prompts.get(prompt, False) or correct
    if not tasks:
        raise ValueError("found no pictures, expected at least one")
    shares = {tag: sum(answers) / len(answers) for tag, answers in tasks.items()}
    pictures = sum(len(answers) for answers in tasks.values())
    right = sum(sum(answers) for answers in tasks.values())
    return Summary(
        overall=sum(shares.values()) / len(shares),
        tasks=shares,
        pictures=pictures,
        prompts=len(prompts),
        correct_pictures=right / pictures,
        correct_prompts=sum(prompts.values()) / len(prompts),
    )


def _faults(clause: Mapping[str, Any], group: Sequence[Box], before: Sequence[Sequence[Box] | None]) -> list[str]:
    """Return what keeps a group of boxes from meeting a clause: nothing, one thing, and after a colour no position."""
    if len(group) < clause["count"]:
        return [f"expected {clause['class']}>={clause['count']}, found {len(group)}"]
    if "color" in clause and (faults := _color_faults(clause, group)):
        return faults
    if "position" in clause:
        return _position_faults(clause, group, before)
    return []


def _color_faults(clause: Mapping[str, Any], group: Sequence[Box]) -> list[str]:
    name, color, count = clause["class"], clause["color"], clause["count"]
    colors = [box.color for box in group]
    if None in colors:
        raise ValueError(
            f"found a {name} without a colour, expected one of {', '.join(COLORS)}: the prompt asks for it"
        )
    if colors.count(color) >= count:
        return []
    others = ", ".join(f"{colors.count(other)} {other}" for other in COLORS if other in colors)
    return [f"expected {color} {name}>={count}, found {colors.count(color)} {color}; and {others}"]


def _position_faults(
    clause: Mapping[str, Any], group: Sequence[Box], before: Sequence[Sequence[Box] | None]
) -> list[str]:
    relation, place = clause["position"]
    targets = before[place]
    if targets is None:
        return [f"no target for {clause['class']} to be {relation}"]
    for box in group:
        for target in targets:
            relations = _relations(box, target)
            if relation not in relations:
                return [f"expected {clause['class']} {relation} target, found {' and '.join(relations)} target"]
    return []


def _relations(box: Box, target: Box) -> list[str]:
    """Return where a box lies, seen from another: nothing where they are too close, at most two relations."""
    a, b = np.array([box.corners, target.corners], dtype=np.float64).reshape(2, 2, 2)
    offset = a.mean(axis=0) - b.mean(axis=0)
    sizes = np.abs(a[1] - a[0]) + np.abs(b[1] - b[0])
    beyond = np.maximum(np.abs(offset) - _SLACK * sizes, 0) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return []
    # Divided by the whole offset, not by what is left of it: the official script's way.
    right, down = beyond / np.linalg.norm(offset)
    words = {"left of": right < -0.5, "right of": right > 0.5, "above": down < -0.5, "below": down > 0.5}
    return [word for word, holds in words.items() if holds]
