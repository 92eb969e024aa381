"""What a run asks under one name, of a published data set or of rows of its own: how it is put and how it is read.

It brings prompt templates and rules together, and knows neither tables nor totals.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jobs.benchmarks.benchmark import Benchmark, Item, PromptTemplate, fill
from jobs.benchmarks.presets import find_template
from jobs.benchmarks.settings import AUTO, BenchmarkSettings
from jobs.prompt import chat_request, request_for
from jobs.scoring.response import Reading, no_response, read_choice, read_response
from jobs.scoring.rule import Gold
from jobs.scoring.rules import LIKELIHOOD
from models.types import Answer, BadRequest, Request, Sampling
from pipeline import MESSAGES

_MARK = re.compile(r"<image (\d+)>")


@dataclass(frozen=True)
class Task:
    """What is asked under one name.

    Attributes:
        prompt: The template of a published data set, or the prompt in which the questions of own rows are put.
        reading: How answers are read, but for what differs from row to row.
        benchmark: The published data set; None for own rows.
        preset: Whose wording it is asked in; None for the run's own.
        can_guess: Whether a random option is taken where none could be read.
    """

    prompt: PromptTemplate | str
    reading: Reading
    benchmark: Benchmark | None = None
    preset: str | None = None
    can_guess: bool = False

    @property
    def is_scored(self) -> bool:
        """Whether given continuations are scored in place of an answer written."""
        return self.reading.rule in LIKELIHOOD

    def request(self, row: Mapping[str, Any], item: Item, sampling: Sampling) -> Request:
        """Ask one row's question of its images.

        Raises:
            BadRequest: A column of the prompt is empty, or an image is missing.
        """
        if isinstance(self.prompt, str) or self.benchmark is None:
            if row.get(MESSAGES):
                return replace(chat_request(str(self.prompt), row, sampling), shared="")
            return request_for(str(self.prompt), row, sampling, shared=True)
        images: Sequence[bytes] = row["images"]
        _check_has_images(self.benchmark, images)
        text = self.prompt.render(item)
        # Where a wording begins on a new line, it is the line after the images.
        text = text if images else text.lstrip("\n")
        before, asks, _ = text.partition(item.question)
        content, shown = _content(text, images, has_marks=self.benchmark.has_image_marks)
        return Request(
            messages=[{"role": "user", "content": content}],
            images=shown,
            sampling=replace(sampling, max_new_tokens=self.prompt.max_new_tokens),
            preprocess=self.prompt.images if images else None,
            choices=tuple(item.facts.get("continuations", ())) if self.is_scored else (),
            # Examples, say; the images come before all text, or are part of it.
            shared=before if asks else "",
        )

    def read(self, item: Item | None, answer: Answer | None, key: str, seed: int) -> dict[str, Any]:
        """Return the columns from `response` on for one row.

        Args:
            item: The question; None for a row that could not even be read.
            answer: None for a row that failed.
            key: The row's name.
            seed: The row's own.
        """
        gold = None if item is None else Gold(item.answers or (), item.choices, item.facts)
        if answer is None or item is None or gold is None:
            return {**no_response(gold, self.reading), "choice_logprobs": None}
        if self.is_scored:
            read = read_choice(answer.choice_logprobs, item.facts["continuations"], gold, self.reading)
            return {**read, "choice_logprobs": list(answer.choice_logprobs)}
        marker = None if isinstance(self.prompt, str) else self.prompt.marker
        reading = replace(self.reading, marker=marker, guess_as=(seed, key) if self.can_guess else None)
        response = read_response(answer.text, gold, reading, is_truncated=answer.finish_reason == "length")
        return {**response, "choice_logprobs": None}


def benchmark_task(
    benchmark: Benchmark, entry: BenchmarkSettings, preset: str, reading: Reading, *, can_guess: bool
) -> Task:
    """Return what is asked of a published data set.

    Args:
        benchmark: The data set.
        entry: What the run says of it; a prompt of its own takes the preset's place, and the preset's limit stays.
        preset: Whose wording the run's data sets are asked in, where the entry says nothing.
        reading: How answers are read.
        can_guess: Whether a random option is taken where none could be read.
    """
    preset = entry.preset or preset
    assert preset != AUTO, "a run resolves it before it starts (jobs/preset.py)"
    used, template = find_template(preset, benchmark)
    if template.images and template.images.max_image_size is not None:  # of frames, whose size the run may set
        template = template._replace(images=replace(template.images, max_image_size=entry.frame_size))
    if entry.prompt is not None:
        template = template._replace(text=partial(fill, entry.prompt), marker=None)
    if entry.max_new_tokens is not None:
        template = template._replace(max_new_tokens=entry.max_new_tokens)
    return Task(template, reading, benchmark, None if entry.prompt else used, can_guess)


def _check_has_images(benchmark: Benchmark, images: Sequence[bytes]) -> None:
    if benchmark.video is not None and not images:
        raise BadRequest(f"found no video, expected one: {benchmark.key} asks about videos")
    if benchmark.images and not images and not benchmark.may_lack_images:
        raise BadRequest(f"found no image, expected one: {benchmark.key} asks about images")


def _content(
    text: str, images: Sequence[bytes], *, has_marks: bool
) -> tuple[list[Mapping[str, Any]], tuple[bytes, ...]]:
    """Return a message's content and the images in the order in which it shows them.

    With marks, `<image k>` stands for the k-th image; images that no mark names come first.

    Raises:
        BadRequest: A mark names an image that the row does not have.
    """
    pieces = _MARK.split(text) if has_marks else [text]
    indices = [int(number) - 1 for number in pieces[1::2]]
    missing = [index + 1 for index in indices if not 0 <= index < len(images)]
    if missing:
        raise BadRequest(f"found <image {missing[0]}> in the question, expected one of the row's {len(images)} images")
    unmarked = [index for index in range(len(images)) if index not in indices]
    content: list[Mapping[str, Any]] = [{"type": "image"} for _ in unmarked]
    for number, piece in enumerate(pieces):
        if number % 2:
            content.append({"type": "image"})
        elif piece or not has_marks:
            content.append({"type": "text", "text": piece})
    return content, tuple(images[index] for index in (*unmarked, *indices))
