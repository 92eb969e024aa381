"""What a run asks under one name, of a published data set or of rows of its own: how it is put and how it is read.

It brings wording and rules together and knows neither tables nor totals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs.benchmarks.ask import request_of, worded
from jobs.benchmarks.benchmark import Benchmark, Item
from jobs.benchmarks.settings import BenchmarkSettings
from jobs.prompt import ask
from jobs.scoring.response import Reading, no_response, read_choice, read_response
from jobs.scoring.rule import Gold
from jobs.scoring.rules import LIKELIHOOD
from models.types import Answer, Request, Sampling


@dataclass(frozen=True)
class Published:
    """Questions of a published data set.

    Attributes:
        benchmark: The data set.
        entry: What the run says of it.
        preset: Whose wording it is asked in.
    """

    benchmark: Benchmark
    entry: BenchmarkSettings
    preset: str


@dataclass(frozen=True)
class Topic:
    """What is asked under one name.

    Attributes:
        asked: A data set, or the prompt in which the questions of own rows are put.
        reading: How answers are read, but for what differs from row to row.
        can_guess: Whether a random option is taken where none could be read.
    """

    asked: Published | str
    reading: Reading
    can_guess: bool = False

    @property
    def preset(self) -> str | None:
        """Whose wording it is asked in; None for the run's own."""
        return self.asked.preset if isinstance(self.asked, Published) and self.asked.entry.prompt is None else None

    @property
    def is_scored(self) -> bool:
        """Whether given continuations are scored in place of an answer written."""
        return self.reading.rule in LIKELIHOOD

    def request(self, row: Mapping[str, Any], item: Item, sampling: Sampling) -> Request:
        """Ask one row's question of its images.

        Raises:
            BadRequest: A column of the prompt is empty, or an image is missing.
        """
        if isinstance(self.asked, str):
            return ask(self.asked, row, sampling)
        said = worded(item, self.asked.benchmark, self.asked.entry, self.asked.preset)
        return request_of(item, row["images"], said, sampling, self.asked.benchmark, is_scored=self.is_scored)

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
            return no_response(gold, self.reading) | {"choice_logprobs": None}
        if self.is_scored:
            return self._chosen(item, gold, answer)
        reading = replace(self.reading, marker=self._marker(item), guess_as=(seed, key) if self.can_guess else None)
        read = read_response(answer.text, gold, reading, is_truncated=answer.finish == "length")
        return read | {"choice_logprobs": None}

    def _chosen(self, item: Item, gold: Gold, answer: Answer) -> dict[str, Any]:
        read = read_choice(answer.choice_logprobs, item.facts["continuations"], gold, self.reading)
        return {**read, "choice_logprobs": list(answer.choice_logprobs)}

    def _marker(self, item: Item) -> str | None:
        if isinstance(self.asked, str):
            return None
        return worded(item, self.asked.benchmark, self.asked.entry, self.asked.preset).marker
