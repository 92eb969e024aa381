"""What prompts that begin alike save: `python -m tests.benchmarks.prefixes`.

The decoders of all families, of random weights and middle size, answer the same requests twice: told what of each
prompt others share (`Request.shared`), and not. Requests are four questions about each picture; MMLU's with five
examples before each, scored by letter; and, for what a cut costs, one question about each picture. Eight slots are
filled as in a run. CPU seconds of one thread, both sides in turn, now the one first and now the other, the first round
left out. Tokens are compared first. One JSON line a case: the share of the prompts' tokens that went through the
decoder, then of the prefill and of all the decoder's work the ratio of both sides' fastest rounds, above 1 where
sharing is faster, and the median of the rounds' ratios.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models import Request, Sampling, load_model, load_processor
from models.engine import Decoder, Engine, Sequence, run_all
from models.stopwatch import Stopwatch
from models.types import Processor
from tests.pictures import encoded
from tests.tiny import tiny_aria, tiny_emu3, tiny_mllama

LLAMA = {
    "hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 8, "num_key_value_heads": 2,
    "num_hidden_layers": 8,
}  # fmt: skip
ARIA = LLAMA | {
    "intermediate_size": 256, "num_key_value_heads": 8, "moe_num_experts": 32, "moe_topk": 6,
}  # fmt: skip
# A picture is 256 tokens to Aria, 1 to Mllama, 256 codes to Emu3.
FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    "aria": lambda folder: tiny_aria(
        folder, text=ARIA, config={"projector_patch_to_query_dict": {"4": 128, "16": 256}}
    ),
    "mllama": lambda folder: tiny_mllama(
        folder, text=LLAMA | {"num_hidden_layers": 10, "cross_attention_layers": [3, 8]}
    ),
    "emu3": lambda folder: tiny_emu3(folder, text=LLAMA, images={"min_pixels": 64 * 64, "max_pixels": 64 * 64}),
}
SLOTS, PICTURES, TOKENS = 8, 4, 8
EXAMPLE = "What color is it?\nA. red\nB. green\nC. blue\nD. black\nAnswer: A"


def questions(number: int) -> list[Request]:
    """Return so many questions about each of a few pictures."""
    made = []
    for seed in range(PICTURES):
        pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        for place in range(number):
            words = {"type": "text", "text": f"Question {place}: {'is it a circle?' if place % 2 else 'what color?'}"}
            messages = [{"role": "user", "content": [{"type": "image"}, words]}]
            picture = encoded(Image.fromarray(pixels))
            made.append(Request("", messages, images=[picture], sampling=Sampling(max_new_tokens=TOKENS), shared=""))
    return made


def examination() -> list[Request]:
    """Return questions of two subjects, each after five examples of its own."""
    made = []
    for subject in ("shapes", "colors"):
        examples = "\n\n".join([f"Questions about {subject}.", *[f"{EXAMPLE} {i}" for i in range(5)]])
        for place in range(8):
            asked = f"{examples}\n\nWhat shape is in the picture number {place}?{' Is it?' * (place % 5)}\nAnswer:"
            messages = [{"role": "user", "content": asked}]
            made.append(Request("", messages, choices=("A", "B", "C", "D"), shared=examples))
    return made


CASES: Mapping[str, Callable[[], list[Request]]] = {
    "four questions a picture": lambda: questions(4),
    "five examples": examination,
    "one question a picture": lambda: questions(1),
}


def measure(families: list[str], rounds: int) -> None:
    """Time both sides in turn."""
    torch.set_num_threads(1)
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            FOLDERS[family](Path(folder))
            processor, model = load_processor(folder), load_model(folder, device="cpu")
        for name, requests in CASES.items():
            _case(family, name, requests(), processor, model, rounds)


def _case(family: str, name: str, requests: list[Request], processor: Processor, model: Decoder, rounds: int) -> None:
    shared = [_sequence(processor, request) for request in requests]
    whole = [_sequence(processor, replace(request, shared=None)) for request in requests]
    sides = (whole, shared)
    found = [{place: _answered(model, sides[place]) for place in ((0, 1), (1, 0))[i % 2]} for i in range(rounds + 1)][
        1:
    ]
    assert found[0][0]["ids"] == found[0][1]["ids"], f"{family}, {name}: the tokens differ"
    told: dict[str, Any] = {"family": family, "case": name, "tokens": found[0][1]["asked"]}
    told["computed"] = round(found[0][1]["prefilled"] / found[0][1]["asked"], 3)
    for what in ("prefill", "whole"):
        best = [min(pair[side][what] for pair in found) for side in (0, 1)]
        ratios = [pair[0][what] / pair[1][what] for pair in found]
        told[what] = [round(best[0] / best[1], 2), round(statistics.median(ratios), 2)]
    print(json.dumps(told | {"load": round(os.getloadavg()[0], 1)}), flush=True)


def _sequence(processor: Processor, request: Request) -> Callable[[], Sequence]:
    given = processor.prepare(request)
    return lambda: Sequence("", given, request.sampling, processor.stop_ids)


def _answered(model: Decoder, make: list[Callable[[], Sequence]]) -> dict[str, Any]:
    sequences, stopwatch = [one() for one in make], CpuStopwatch()
    longest = max(one.longest_prompt + one.most_new_tokens for one in sequences)
    engine = Engine(model, slots=SLOTS, max_length=longest, stopwatch=stopwatch)
    run_all(engine, sequences)
    seconds = stopwatch.take()
    return {
        "ids": [one.completion and one.completion.token_ids for one in sequences],
        "asked": engine.num_asked,
        "prefilled": engine.num_prefilled,
        "prefill": seconds["prefill"],
        "whole": seconds["prefill"] + seconds.get("decode", 0.0),
    }


class CpuStopwatch(Stopwatch):
    """Measures what this process computes, and not what others do meanwhile."""

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the CPU seconds of a block to a name."""
        started = time.process_time()
        yield
        self.add(name, time.process_time() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    measure(asked.families, asked.rounds)
