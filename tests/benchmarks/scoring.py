"""How many rows a minute one core scores: `python -m tests.benchmarks.scoring`.

Rows are made up: VQAv2's with ten answers each, DocVQA's with one to three. They come out of Arrow, as stored
predictions do, so that no string is an object seen before, and each rule starts with nothing remembered.

VQAv2's mix: 38 % of the questions are yes or no, 12 % numbers, 50 % other words out of 60,000 phrases that occur as in
Zipf's law; seven answers in ten are the question's commonest one, the others another phrase or its spelling with an
article, a capital or a full stop. Half the predictions are right, one in ten is a sentence. DocVQA's answers are
phrases of 1 to 8 words, each new; predictions are one of them with up to 4 letters changed, or another phrase. The
row between has VQA answers that hardly ever come twice, so that remembering does not help.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

import pyarrow as pa

from jobs.scoring.rule import Gold
from jobs.scoring.rules import RULES
from jobs.scoring.rules.vqa import normalize_evalai

LETTERS = "eeeetttaaooiinnsshhrrdlucmfwypvbgk"


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randint(2, 9)))


def _phrase(draw: random.Random, most: int) -> str:
    return " ".join(_word(draw) for _ in range(draw.randint(1, most)))


def _spelled(draw: random.Random, answer: str) -> str:
    return draw.choice([f"the {answer}", f"{answer}.", answer.capitalize(), answer.replace(" ", "-")])


def vqa_rows(draw: random.Random, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Give predictions and ten answers each."""
    phrases = [_phrase(draw, 3) for _ in range(60_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(phrases) + 1)))
    for _ in range(rows):
        kind = draw.random()
        if kind < 0.38:
            known, other = draw.sample(["yes", "no"], 2)
        elif kind < 0.5:
            known, other = str(draw.randint(0, 5)), str(draw.randint(0, 200))
        else:
            known, other = draw.choices(phrases, cum_weights=weights, k=2)
        answers = [known if draw.random() < 0.7 else draw.choice([other, _spelled(draw, known)]) for _ in range(10)]
        said = draw.choice([known, other])
        yield (f"The answer is {said}." if draw.random() < 0.1 else said.capitalize()), answers


def document_rows(draw: random.Random, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Give predictions and one to three answers each."""
    for _ in range(rows):
        answers = [_phrase(draw, 8).title() for _ in range(draw.randint(1, 3))]
        letters = list(draw.choice(answers) if draw.random() < 0.8 else _phrase(draw, 8))
        for _ in range(draw.randint(0, 4)):
            letters[draw.randrange(len(letters))] = draw.choice(LETTERS)
        yield "".join(letters), answers


def strange_rows(draw: random.Random, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Give predictions and ten answers each, in all of which there is something to normalise."""
    for _ in range(rows):
        yield _phrase(draw, 3), [_spelled(draw, _phrase(draw, 3)) for _ in range(10)]


MADE: list[tuple[str, str, Callable[[random.Random, int], Iterator[tuple[str, list[str]]]]]] = [
    ("vqa/always_norm", "VQAv2", vqa_rows),
    ("vqa/always_norm", "hardly any answer twice", strange_rows),
    ("anls/rrc", "DocVQA", document_rows),
]


def measure(rule: str, table: pa.Table) -> tuple[float, float]:
    """Return CPU seconds and the mean score; reading the strings out of Arrow is part of the time."""
    normalize_evalai.cache_clear()
    judge, total = RULES[rule], 0.0
    start = time.process_time()
    for batch in table.to_batches(max_chunksize=10_000):
        for response, answers in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            total += judge(response, Gold(tuple(answers))).score or 0.0
    return time.process_time() - start, total / table.num_rows


def main() -> None:
    """Print a line for each rule: the fastest of some rounds."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--rows", type=int, default=200_000)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    print("| rule | rows | CPU s | rows a minute | mean score | strings a row | of them new |")
    print("|---|---|---|---|---|---|---|")
    for rule, mix, rows in MADE:
        pairs = list(rows(random.Random(6), given.rows))
        strings = [string for response, answers in pairs for string in (response, *answers)]
        table = pa.table({"response": [pair[0] for pair in pairs], "answers": [pair[1] for pair in pairs]})
        seconds, mean = min(measure(rule, table) for _ in range(given.rounds))
        print(
            f"| `{rule}`, {mix} | {given.rows:,} | {seconds:.2f} | {given.rows / seconds * 60:,.0f} | {mean:.3f} "
            f"| {len(strings) / given.rows:.1f} | {len(set(strings)) / len(strings):.1%} |"
        )


if __name__ == "__main__":
    main()
