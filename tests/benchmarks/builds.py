"""This build against another one: `python -m tests.benchmarks.builds ../another-checkout`.

The decoders of all three families, of random weights and middle size, answer 1 and 8 sequences on both sides: a process
for each side that loads its own code, both loaded once and asked in turn, now the one first and now the other. Prefill
is everything up to the first token, decode is what each further token takes. CPU seconds; a ratio above 1 says that
this build is faster. Tokens are compared first. One JSON line a case: the ratio of both sides' fastest rounds, then the
median of the rounds' ratios.

`--package demo` asks the demo's checkpoints instead, which are a hundred times smaller.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROMPT, TOKENS = 64, 32
MIDDLE: dict[str, dict[str, Any]] = {
    "aria": {
        "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 256, "num_attention_heads": 8,
        "num_key_value_heads": 8, "moe_num_experts": 32, "moe_topk": 6,
    },
    "mllama": {
        "num_hidden_layers": 10, "hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 8,
        "num_key_value_heads": 2, "cross_attention_layers": [3, 8],
    },
    "emu3": {
        "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
}  # fmt: skip


def answer(folders: Mapping[str, str], threads: int) -> None:
    """Answer what is asked on standard input, a JSON line each, with the code that is found first."""
    import numpy as np
    import torch

    from models import load_model
    from models.engine import Engine, Sequence
    from models.types import ModelInput, Sampling

    torch.set_num_threads(threads)
    loaded = {name: load_model(folder, device="cpu", text_only=True) for name, folder in folders.items()}
    for line in sys.stdin:
        family, rows = json.loads(line)
        words = np.random.default_rng(0).integers(20, 200, (rows, PROMPT), dtype=np.int32)
        sequences = [Sequence("", ModelInput("", ids), Sampling(max_new_tokens=TOKENS)) for ids in words]
        engine = Engine(loaded[family], slots=rows, max_length=PROMPT + TOKENS)
        ticks = [time.process_time()]
        for sequence in sequences:
            engine.submit(sequence)
        while not engine.is_idle:
            engine.step()  # the first one gives two tokens: that of the prompt and one more
            ticks.append(time.process_time())
        decode = (ticks[-1] - ticks[1]) / (len(ticks) - 2)
        ids = [sequence.token_ids for sequence in sequences]
        print(json.dumps({"prefill": ticks[1] - ticks[0] - decode, "decode": decode, "ids": ids}), flush=True)


class Side:
    """A process that runs one checkout's code."""

    def __init__(self, checkout: Path, folders: Mapping[str, str], threads: int) -> None:
        command = [sys.executable, "-P", __file__, str(checkout), "--answer", json.dumps(folders)]
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, family: str, rows: int) -> dict[str, Any]:
        """Return its tokens and times."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([family, rows]), file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


def measure(other: Path, folders: Mapping[str, str], rounds: int, threads: int) -> None:
    """Ask both sides in turn."""
    sides = [Side(checkout, folders, threads) for checkout in (other, ROOT)]
    for family in folders:
        for rows in (1, 8):
            pairs = [_pair(sides, family, rows, number % 2) for number in range(rounds + 1)][1:]
            assert all(one["ids"] == two["ids"] for one, two in pairs), f"{family}: the tokens differ"
            told: dict[str, Any] = {"family": family, "sequences": rows}
            for name in ("prefill", "decode"):
                ratios = [one[name] / two[name] for one, two in pairs]
                best = [min(pair[side][name] for pair in pairs) for side in (0, 1)]
                told[name] = [round(best[0] / best[1], 3), round(statistics.median(ratios), 3)]
                told[f"{name}_ms"] = round(1000 * best[1], 2)
            print(json.dumps(told | {"load": round(os.getloadavg()[0], 1)}), flush=True)


def _pair(sides: list[Side], family: str, rows: int, first: int) -> tuple[dict[str, Any], dict[str, Any]]:
    asked = {place: sides[place].ask(family, rows) for place in (first, 1 - first)}
    return asked[0], asked[1]


def _folders(package: str, families: list[str], parent: Path) -> dict[str, str]:
    if package == "demo":
        return {name: str(ROOT / "jobs/demo/checkpoints" / name) for name in families}
    from tests.tiny import tiny_aria, tiny_emu3, tiny_mllama

    tiny = {"aria": tiny_aria, "mllama": tiny_mllama, "emu3": tiny_emu3}
    return {name: str(tiny[name](parent / name, text=MIDDLE[name])) for name in families}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="of the other build")
    parser.add_argument("--package", choices=["middle", "demo"], default="middle")
    parser.add_argument("--families", nargs="+", choices=MIDDLE, default=list(MIDDLE))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.answer:
        answer(json.loads(asked.answer), asked.threads)
    else:
        with tempfile.TemporaryDirectory() as folder:
            folders = _folders(asked.package, asked.families, Path(folder))
            measure(asked.checkout, folders, asked.rounds, asked.threads)
