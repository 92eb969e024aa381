"""Decoders on a CPU, side by side: `python -m tests.benchmarks.decoding --against transformers`, or another checkout.

Models of random weights and middle size answer the same rows on both sides, greedily. A process for each side loads its
own code and its models once (tests/benchmarks/sides.py); then the sides are asked in turn, now the one first and now
the other, on one thread. Tokens are compared first: in float32 nothing is printed where they differ; in half precision
`agreement` is the share of tokens that are equal up to a row's first difference. One JSON line for each case: CPU
seconds, and for each part the ratio of both sides' fastest rounds and the median of the rounds' ratios; above 1, ours
is faster.

The other side is `transformers`, `llama.cpp` (see the README beside) or the folder of another checkout, whose side and
ours may have unlike dtypes: `--dtype` is ours, `--their-dtype` theirs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AriaTextConfig, AriaTextForCausalLM, Emu3ForCausalLM, Emu3TextConfig

from tests.benchmarks.generation import SIZE
from tests.benchmarks.sides import KINDS, Question, Side, Told
from tests.models.mllama_reference import write_reference
from tests.models.reference import random_reference

ROOT = Path(__file__).parents[2]
VOCABULARY = 5632
LLAMA = "llama.cpp"  # whose weights are bfloat16 here
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 1792, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"intermediate_size": 256, "num_key_value_heads": 8, "moe_num_experts": 32, "moe_topk": 6}
WIDE = {"hidden_size": 2048, "intermediate_size": 7168, "num_attention_heads": 32, "num_key_value_heads": 8}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


@dataclass(frozen=True)
class Case:
    """Rows that are asked of one model.

    Attributes:
        slots: Rows that run at once.
        rows: How many there are.
        prompt: Their prompts have from so many tokens to so many.
        new: Likewise, tokens of an answer.
        picture: The grid of each row's picture, if it has one.
        questions: So many rows share a picture.
    """

    slots: int
    rows: int
    prompt: tuple[int, int] = (64, 64)
    new: tuple[int, int] = (32, 32)
    picture: tuple[int, int] | None = None
    questions: int = 1

    def question(self, model: str) -> Question:
        """Return what both sides are asked."""
        generator = np.random.default_rng(0)
        lengths = np.linspace(*self.prompt, self.rows).round().astype(int)
        new = np.minimum(self.new[0] + generator.exponential(max(1, self.new[0] * 5.5), self.rows), self.new[1])
        rows = []
        for number, length in enumerate(generator.permutation(lengths)):
            ids = generator.integers(3, VOCABULARY, int(length)).tolist()
            pictures = [(*self.picture, number // self.questions)] if self.picture else []
            rows.append({"ids": [SIZE.image, *ids[1:]] if pictures else ids, "pictures": pictures})
        return {"model": model, "rows": rows, "new": [int(count) for count in new], "slots": self.slots}


TEXTS = {
    "one": Case(1, 1),
    "eight": Case(8, 8, prompt=(16, 96)),
    "mixed": Case(8, 32, prompt=(16, 64), new=(8, 128)),
}
PICTURES = {
    "one": Case(1, 1, picture=(2, 2)),
    "eight": Case(8, 8, prompt=(32, 32), picture=(2, 2)),
    "one tile": Case(8, 8, prompt=(32, 32), picture=(1, 1)),
    "questions": Case(8, 8, prompt=(32, 32), picture=(2, 2), questions=4),
    "short answers": Case(8, 8, prompt=(32, 32), new=(4, 4), picture=(2, 2), questions=4),
}
CASES = {
    "emu3": TEXTS,
    "aria": TEXTS,
    "mllama": PICTURES,
    "emu3-2048": {name: TEXTS[name] for name in ("one", "eight")},
}


def write_model(name: str, folder: Path) -> dict[str, Any]:
    """Write a checkpoint that every side loads; return what `Side` is told of it."""
    if name == "mllama":
        write_reference(folder, SIZE)
        path = folder / "model.safetensors"
        save_file({name: tensor.bfloat16().float() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
        return {"folder": str(folder), "size": asdict(SIZE)}
    config = {"emu3": Emu3TextConfig, "aria": AriaTextConfig}[name.split("-")[0]]
    model_class = {"emu3": Emu3ForCausalLM, "aria": AriaTextForCausalLM}[name.split("-")[0]]
    changes = {"aria": EXPERTS, "emu3-2048": WIDE}.get(name, {})
    model = random_reference(model_class, config(**TEXT | changes | ROPE), _randomise)
    model.save_pretrained(folder)
    return {"folder": str(folder), "size": None}


@torch.no_grad()
def _randomise(model: Any) -> None:
    """Make every parameter random, in numbers that bfloat16 has; a token is likeliest followed by another one.

    So greedy answers wander as a trained model's do, and are no matter of the last bit.
    """
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5, generator=generator)
        elif "embed" in name:
            parameter.normal_(0, 2, generator=generator)
        else:
            width = parameter.shape[1] if parameter.ndim == 3 else parameter[0].numel()
            parameter.normal_(0, 0.85 * width**-0.5, generator=generator)
    words, head = model.get_input_embeddings().weight, model.lm_head.weight
    head[(torch.arange(len(head)) + 31) % len(head)] += 1.5 * words * words.shape[1] ** -0.5
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Return the share of tokens that are equal up to each row's first difference."""
    equal = 0
    for one, two in zip(ours, theirs, strict=True):
        assert len(one) == len(two)
        equal += next((place for place, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1]), len(one))
    return equal / sum(map(len, ours))


def compare(one: Side, other: Side, question: Question, rounds: int, *, is_exact: bool) -> dict[str, Any]:
    """Ask both sides in turn; return ratios."""
    ours: list[Told] = []
    theirs: list[Told] = []
    for number in range(rounds + 1):
        for side, told in [(one, ours), (other, theirs)][:: 1 if number % 2 else -1]:
            told.append(side.ask(question))
    share = agreement(ours[0]["ids"], theirs[0]["ids"])
    if is_exact and share < 1:
        raise SystemExit(f"{question['model']}: the tokens differ, {share:.3f} of them are equal; expected all")
    found: dict[str, Any] = {"agreement": round(share, 3)}
    for part in ("total", "prefill", "decode"):
        pairs = [(mine[part], yours[part]) for mine, yours in zip(ours[1:], theirs[1:], strict=True)]
        best = [min(pair[side] for pair in pairs) for side in (0, 1)]
        median = statistics.median(yours / mine for mine, yours in pairs)
        found[part] = [round(best[1] / best[0], 3), round(median, 3)]
        found[f"{part}_ms"] = [round(1000 * seconds, 2) for seconds in best]
    return found


def main(asked: argparse.Namespace) -> None:
    """Compare every case that is asked for."""
    with tempfile.TemporaryDirectory() as parent:
        models = {name: write_model(name, Path(parent, name)) for name in asked.models}
        one, other = _sides(asked, models)
        for name in asked.models:
            for case, rows in CASES[name].items():
                if asked.cases and case not in asked.cases:
                    continue
                is_exact = (
                    asked.dtype == (asked.their_dtype or asked.dtype) == "float32" and asked.against != "llama.cpp"
                )
                found = compare(one, other, rows.question(name), asked.rounds, is_exact=is_exact)
                told = {"against": asked.against, "dtype": asked.dtype, "model": name, "case": case}
                print(json.dumps(told | found | {"load": round(os.getloadavg()[0], 1)}), flush=True)
        one.close()
        other.close()


def _sides(asked: argparse.Namespace, models: Mapping[str, Any]) -> tuple[Side, Side]:
    known = asked.against in KINDS
    kind, root = (asked.against, ROOT) if known else ("ours", Path(asked.against))
    own = Side("ours", models, root=ROOT, python=sys.executable, dtype=asked.dtype, threads=asked.threads)
    dtype = asked.their_dtype or asked.dtype
    return own, Side(kind, models, root=root, python=asked.python, dtype=dtype, threads=asked.threads)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", required=True, help="transformers, llama.cpp, or the folder of a checkout")
    parser.add_argument("--models", nargs="+", choices=CASES, default=["emu3", "aria", "mllama"])
    parser.add_argument("--cases", nargs="+", help="default: all of each model")
    parser.add_argument("--dtype", default="float32", help="of our weights")
    parser.add_argument("--their-dtype", help="default: as ours")
    parser.add_argument("--python", default=sys.executable, help="of the other side: llama.cpp has its own environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
