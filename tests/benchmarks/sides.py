"""One side of a comparison of decoders, as a process: it loads checkpoints once and answers what it is asked.

`serve` runs in that process, whichever code it finds first: this checkout's, another one's, or an oracle that is
installed in an environment of its own. It imports nothing of this package, which that code may not have. `Side` is the
other end of the line.

Asked and told are JSON lines. A question names a checkpoint, rows (token ids, and pictures as rows, columns and seed of
their tiles), how many new tokens each row gets and how many rows run at once. An answer is the ids of each row, and CPU
seconds: in all, up to the first tokens, and for each step after that.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Question = Mapping[str, Any]
Told = dict[str, Any]


class Side:
    """A process that answers with one code."""

    def __init__(
        self, kind: str, models: Mapping[str, Any], *, root: Path, python: str, dtype: str, threads: int
    ) -> None:
        """Start it.

        Args:
            kind: A key of `KINDS`.
            models: What a checkpoint's name stands for: `folder`, and `size` of a Mllama that sees pictures.
            root: The checkout whose code it finds first.
            python: The interpreter.
            dtype: What weights are held in.
            threads: Of each product.
        """
        command = [python, "-P", __file__, kind, "--models", json.dumps(models), "--dtype", dtype]
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            env={**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: Question) -> Told:
        """Return its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        told: Told = json.loads(self._process.stdout.readline())
        return told

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ours(models: Mapping[str, Any], dtype: str, threads: int) -> Callable[[Question], Told]:
    """Answer with the engine of the checkout that is found first."""
    import numpy as np
    import torch

    from models import load_model
    from models.engine import Engine, Sequence
    from models.tiles import ImageCache
    from models.types import ModelInput, Sampling

    torch.set_num_threads(threads)
    loaded = {
        name: load_model(model["folder"], device="cpu", dtype=dtype, text_only=model["size"] is None)
        for name, model in models.items()
    }

    def given(row: Mapping[str, Any], size: Any) -> ModelInput:
        if size is None:
            return ModelInput("", np.array(row["ids"], np.int32))
        from tests.models.mllama_reference import Picture, Row, Size

        return Row(row["ids"], [Picture(*one) for one in row["pictures"]]).ours(Size(**size))

    def answer(question: Question) -> Told:
        model = loaded[question["model"]]
        if hasattr(model, "image_cache"):
            model.image_cache = ImageCache()  # or the pictures would be known from the round before
        rows = [given(row, models[question["model"]]["size"]) for row in question["rows"]]
        sequences = [
            Sequence("", row, Sampling(max_new_tokens=count)) for row, count in zip(rows, question["new"], strict=True)
        ]
        longest = max(len(row.token_ids) + count for row, count in zip(rows, question["new"], strict=True))
        ticks = [time.process_time()]
        engine = Engine(model, slots=question["slots"], max_length=longest)
        for sequence in sequences:
            engine.submit(sequence)
        while not engine.is_idle:
            engine.step()  # the first one gives two tokens: that of the prompt and one more
            ticks.append(time.process_time())
        step = (ticks[-1] - ticks[1]) / (len(ticks) - 2)
        return _told([one.token_ids for one in sequences], ticks[-1] - ticks[0], ticks[1] - ticks[0] - step, step)

    return answer


def transformers(models: Mapping[str, Any], dtype: str, threads: int) -> Callable[[Question], Told]:
    """Answer with `generate` of transformers: rows in their order, as many at once as asked, padded on the left."""
    import torch
    from transformers import AriaTextForCausalLM, Emu3ForCausalLM, MllamaConfig, MllamaForConditionalGeneration

    torch.set_num_threads(threads)
    kinds = {"aria": AriaTextForCausalLM, "emu3": Emu3ForCausalLM}

    def load(name: str, model: Mapping[str, Any]) -> Any:
        options: dict[str, Any] = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
        if model["size"] is None:
            return kinds[name.split("-")[0]].from_pretrained(model["folder"], **options).eval()
        config = MllamaConfig.from_pretrained(model["folder"])
        config.vision_config.intermediate_layers_indices = [
            layer - 1 for layer in model["size"]["vision"]["intermediate_layers_indices"]
        ]
        return MllamaForConditionalGeneration.from_pretrained(model["folder"], config=config, **options).eval()

    loaded = {name: load(name, model) for name, model in models.items()}

    def inputs(rows: list[Mapping[str, Any]], size: Any) -> dict[str, Any]:
        from tests.models.mllama_reference import Picture, Row, Size, batch

        few = [Row(row["ids"], [Picture(*one) for one in row.get("pictures", ())]) for row in rows]
        return batch(few, Size(**size) if size else None)  # without pictures it needs none

    @torch.inference_mode()
    def answer(question: Question) -> Told:
        model, ids, seconds, first, steps = loaded[question["model"]], [], 0.0, 0.0, []
        for rows, new in _in_batches(question):
            made = inputs(rows, models[question["model"]]["size"])
            ticks = [time.process_time()]

            def tick(_: Any, scores: Any, ticks: list[float] = ticks) -> Any:
                ticks.append(time.process_time())
                return scores

            options = {"do_sample": False, "max_new_tokens": max(new), "eos_token_id": None, "pad_token_id": 0}
            out = model.generate(**made, **options, logits_processor=[tick])
            longest = made["input_ids"].shape[1]
            ids += [row[longest : longest + count].tolist() for row, count in zip(out, new, strict=True)]
            seconds += time.process_time() - ticks[0]
            first += ticks[1] - ticks[0]
            steps.append((ticks[-1] - ticks[1]) / (len(ticks) - 2))
        return _told(ids, seconds, first, sum(steps) / len(steps))

    return answer


def _in_batches(question: Question) -> Iterator[tuple[list[Any], list[int]]]:
    for start in range(0, len(question["rows"]), question["slots"]):
        chosen = slice(start, start + question["slots"])
        yield question["rows"][chosen], question["new"][chosen]


def _told(ids: list[list[int]], seconds: float, prefill: float, decode: float) -> Told:
    return {"ids": ids, "total": seconds, "prefill": prefill, "decode": decode}


def llama_cpp(models: Mapping[str, Any], dtype: str, threads: int) -> Callable[[Question], Told]:
    """Answer with llama.cpp, in bfloat16 whatever the dtype is."""
    from tests.benchmarks import llama_cpp_side

    return llama_cpp_side.llama_cpp(models, dtype, threads)


KINDS = {"ours": ours, "transformers": transformers, "llama.cpp": llama_cpp}


def serve(kind: str, models: Mapping[str, Any], dtype: str, threads: int) -> None:
    """Answer each line of standard input; what a library prints goes to standard error, so as not to be an answer."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer = KINDS[kind](models, dtype, threads)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=told, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--models", type=json.loads)
    parser.add_argument("--dtype")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    serve(asked.kind, asked.models, asked.dtype, asked.threads)
