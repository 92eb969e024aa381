"""Put an item of a published data set to a model: words and pictures in the order in which they belong together.

It knows items, presets and messages; which model reads them, and how its chat is written, is not known here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.benchmarks.benchmark import Benchmark, Item
from jobs.benchmarks.prompts import fill, preset_of, wording
from jobs.benchmarks.settings import AUTO, BenchmarkSettings
from jobs.benchmarks.wording import Wording
from models.types import BadRequest, Request, Sampling

_MARK = re.compile(r"<image (\d+)>")


def worded(item: Item, benchmark: Benchmark, entry: BenchmarkSettings, preset: str) -> Wording:
    """Return how an item is put, and the longest answer.

    Args:
        item: The question.
        benchmark: Its data set.
        entry: What the run says of it; a prompt of its own takes the preset's place, and the preset's limit stays.
        preset: Whose wording it is.
    """
    found = wording(preset, benchmark.key, item)
    if found.images and found.images.max_image_size is not None:  # of frames, whose size the run may set
        found = replace(found, images=replace(found.images, max_image_size=entry.frame_size))
    if entry.prompt is not None:
        found = replace(found, text=fill(entry.prompt, item), marker=None)
    return found if entry.max_new_tokens is None else replace(found, max_new_tokens=entry.max_new_tokens)


def preset_for(benchmark: Benchmark, entry: BenchmarkSettings, asked: str) -> str:
    """Return the preset that an entry is really asked in: its own, the job's, or what stands in for that."""
    preset = entry.preset or asked
    assert preset != AUTO, "settled before a run starts (jobs/preset.py)"
    return preset_of(preset, benchmark.key)


def request_of(
    item: Item, images: Sequence[bytes], said: Wording, sampling: Sampling, benchmark: Benchmark, *, is_scored: bool
) -> Request:
    """Return the request for an item.

    Args:
        item: The question.
        images: The row's, in the data set's order.
        said: How it is put.
        sampling: The run's, with the row's seed.
        benchmark: Its data set.
        is_scored: Whether given continuations are scored in place of an answer written.

    Raises:
        BadRequest: An image is missing, or a mark stands for one that is not there.
    """
    if benchmark.video is not None and not images:
        raise BadRequest(f"found no video, expected one: {benchmark.key} asks about videos")
    if benchmark.images and not images and not benchmark.may_lack_images:
        raise BadRequest(f"found no image, expected one: {benchmark.key} asks about images")
    # Where a wording begins on a new line, it is the line after the images.
    text = said.text if images else said.text.lstrip("\n")
    content, shown = interleaved(text, images) if said.has_marks else (_after(text, images), tuple(images))
    return Request(
        messages=[{"role": "user", "content": content}],
        images=shown,
        sampling=replace(sampling, max_new_tokens=said.max_new_tokens),
        preprocess=said.images if images else None,
        choices=tuple(item.facts.get("continuations", ())) if is_scored else (),
    )


def _after(text: str, images: Sequence[bytes]) -> list[Mapping[str, Any]]:
    return [*({"type": "image"} for _ in images), {"type": "text", "text": text}]


def interleaved(text: str, images: Sequence[bytes]) -> tuple[list[Mapping[str, Any]], tuple[bytes, ...]]:
    """Return a message's content and the images in the order in which it shows them.

    `<image k>` stands for the k-th; those that no mark names come first.

    Raises:
        BadRequest: A mark names an image that the row does not have.
    """
    pieces = _MARK.split(text)
    places = [int(number) - 1 for number in pieces[1::2]]
    beyond = [place + 1 for place in places if not 0 <= place < len(images)]
    if beyond:
        raise BadRequest(f"found <image {beyond[0]}> in the question, expected one of the row's {len(images)} images")
    unmarked = [place for place in range(len(images)) if place not in places]
    content: list[Mapping[str, Any]] = [{"type": "image"} for _ in unmarked]
    for number, piece in enumerate(pieces):
        if number % 2:
            content.append({"type": "image"})
        elif piece:
            content.append({"type": "text", "text": piece})
    return content, tuple(images[place] for place in (*unmarked, *places))
