"""Our engine against `transformers.generate` on one checkpoint: `python -m tests.benchmarks.generation`.

A Mllama of random weights, large enough that matrix products matter, answers the same batch on both sides, in turn, in
one process on one thread. Prefill is everything up to the first token, vision included; decode is what each further
token takes. Both sides are warmed up; times are CPU times; a ratio above 1 says that ours is faster. Answers are
compared first, and nothing is printed where they differ. One JSON line per round, and the medians of the ratios.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import load_model
from models.engine import Engine, Sequence
from models.mllama.model import MllamaModel
from models.tiles import ImageCache
from models.types import Sampling
from tests.models.mllama_reference import PAD, Picture, Row, Size, batch, write_reference

# Ten layers, two of them looking at pictures of 4 x 1025 tokens; a head that is as large a part as the released one's.
SIZE = Size(
    text={
        "vocab_size": 5632, "hidden_size": 512, "intermediate_size": 1792, "num_hidden_layers": 10,
        "num_attention_heads": 8, "num_key_value_heads": 2, "cross_attention_layers": [3, 8],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "max_position_embeddings": 1024,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    },
    vision={
        "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_global_layers": 1,
        "attention_heads": 4, "image_size": 448, "patch_size": 14, "max_num_tiles": 4,
        "intermediate_layers_indices": [1],
    },
)  # fmt: skip
ROWS, PROMPT = 8, 32


@dataclass(frozen=True)
class Case:
    """What is asked: the grid of each picture, and how many rows share one."""

    name: str
    grid: tuple[int, int]
    questions: int = 1

    def rows(self) -> list[Row]:
        """Return the rows of one batch; each begins with its picture, where both sides follow one rule."""
        words = np.random.default_rng(0).integers(3, SIZE.text["vocab_size"], (ROWS, PROMPT - 1))
        return [
            Row([SIZE.image, *ids.tolist()], [Picture(*self.grid, seed=number // self.questions)])
            for number, ids in enumerate(words)
        ]


CASES = (Case("four tiles", (2, 2)), Case("one tile", (1, 1)), Case("four tiles, four questions each", (2, 2), 4))


def measure(tokens: int, rounds: int) -> None:
    """Time both sides in turn."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        theirs = write_reference(Path(folder), SIZE)
        theirs.set_attn_implementation("sdpa")
        ours = load_model(folder, device="cpu")
    assert isinstance(ours, MllamaModel)
    for case in CASES:
        ratios = [ratio for _ in range(rounds + 1) for ratio in [_round(case, ours, theirs, tokens)]][1:]
        for number, ratio in enumerate(ratios):
            _tell(case=case.name, round=number, **ratio)
        medians = {name: statistics.median(ratio[name] for ratio in ratios) for name in ("prefill", "decode")}
        _tell(case=case.name, round="median", **medians)


@dataclass(frozen=True)
class Timed:
    """One side's answers to a batch, and its CPU seconds until the first token and for each token after it."""

    answers: list[list[int]]
    prefill: float
    decode: float


def _round(case: Case, ours: MllamaModel, theirs: Any, tokens: int) -> dict[str, float]:
    rows = case.rows()
    expected, answered = _their_answers(theirs, rows, tokens), _our_answers(ours, rows, tokens)
    assert answered.answers == expected.answers, f"{case.name}: the answers differ"
    return {
        "prefill": expected.prefill / answered.prefill,
        "decode": expected.decode / answered.decode,
        "our_prefill_s": answered.prefill,
        "our_tokens_per_s": ROWS / answered.decode,
        "their_tokens_per_s": ROWS / expected.decode,
    }


def _our_answers(model: MllamaModel, rows: list[Row], tokens: int) -> Timed:
    model.image_cache = ImageCache()  # or the pictures would be known from the round before
    sequences = [Sequence("", row.ours(SIZE), Sampling(max_new_tokens=tokens)) for row in rows]
    started = time.process_time()
    engine = Engine(model, slots=ROWS, max_length=PROMPT + tokens)
    for sequence in sequences:
        engine.submit(sequence)
    ticks = [started]
    while not engine.is_idle:
        engine.step()  # the first one gives two tokens: that of the prompt and one more
        ticks.append(time.process_time())
    decode = (ticks[-1] - ticks[1]) / (len(ticks) - 2)
    return Timed([sequence.token_ids for sequence in sequences], ticks[1] - started - decode, decode)


@torch.inference_mode()
def _their_answers(model: Any, rows: list[Row], tokens: int) -> Timed:
    inputs = batch(rows, SIZE)
    ticks = [time.process_time()]

    def tick(_: Tensor, scores: Tensor) -> Tensor:
        ticks.append(time.process_time())
        return scores

    options = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": None, "pad_token_id": PAD}
    out = model.generate(**inputs, **options, logits_processor=[tick])
    answers = out[:, inputs["input_ids"].shape[1] :].tolist()
    return Timed(answers, ticks[1] - ticks[0], (ticks[-1] - ticks[1]) / (len(ticks) - 2))


def _tell(**values: Any) -> None:
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps(rounded | {"load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measure(arguments.tokens, arguments.rounds)
