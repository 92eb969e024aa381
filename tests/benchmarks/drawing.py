"""Our engine against the documented way to draw with Emu3 in transformers: `python -m tests.benchmarks.drawing`.

An Emu3 of random weights draws the same prompts on both sides, in turn, in one process on one thread: with guidance and
a negative prompt, each code drawn among the 2048 likeliest. In the case `share` the head is as large a part of the work
as the released model's, in `real` the vocabulary is the released one. Greedy pictures are compared first, which warms
both sides up, and nothing is printed where they differ. Times are CPU times; a ratio above 1 says that ours is faster.

Prints JSON lines for each batch: the median ratios and seconds, where each side's time goes, what each side computed.
Ends with an error where drawing is below its floor.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.generation import logits_process

from models import load_model
from models.cache.slots import CacheView
from models.emu3.grid import Grid
from models.emu3.model import Emu3Model
from models.engine import Engine, Sequence, run_all
from models.engine import lanes as our_lanes
from models.types import ModelInput, Sampling
from tests.benchmarks import emu3_recipe as recipe
from tests.benchmarks.emu3_recipe import Drawing, Vocabulary
from tests.benchmarks.watching import Parts, Stopwatch, seen


@dataclass(frozen=True)
class Case:
    """A vocabulary and a size of pictures; the ratio that no batch may fall below, and the one that is wanted."""

    name: str
    vocabulary: Vocabulary
    grid: tuple[int, int]
    floor: float
    goal: float


CASES = (
    Case("share", Vocabulary(5_632, 1_000), (16, 16), floor=1.8, goal=2.6),
    Case("real", Vocabulary(184_622, 32_768), (8, 8), floor=3.5, goal=6.0),
)
# Pictures that are compared: long enough for a few ends of line, short enough that scores are not equal by chance.
COMPARED = (4, 4)


@dataclass(frozen=True)
class Both:
    """One model on both sides."""

    ours: Emu3Model
    theirs: Any

    def our_parts(self) -> Parts:
        """Return what of ours is watched."""
        return {
            "body": [(self.ours, "decode")],
            "cache": [(CacheView, "write")],
            "head": [(self.ours, "logits")],
            "guidance": [(our_lanes, "guided")],
            "top k and draw": [(our_lanes, "choose")],
        }

    def their_parts(self) -> Parts:
        """Return what of theirs is watched."""
        return {
            "body": [(self.theirs.model.text_model, "forward")],
            "cache": [(DynamicCache, "update")],
            "head": [(self.theirs.lm_head, "forward")],
            "prefix function and mask": [(logits_process.PrefixConstrainedLogitsProcessor, "__call__")],
            "guidance": [(logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor, "__call__")],
            "top k and draw": [
                (logits_process.TopKLogitsWarper, "__call__"),
                (torch.nn.functional, "softmax"),
                (torch, "multinomial"),
            ],
        }

    def engine(self, what: Drawing, speculate: int = 1) -> Engine:
        """Return an engine of ours that holds a whole batch."""
        longest = max(map(len, (*what.prompts, what.negative)))
        slots, max_length = 2 * len(what.prompts), longest + what.num_tokens
        return Engine(self.ours, slots=slots, max_length=max_length, speculate=speculate)

    def draw(self, what: Drawing, *, greedy: bool = False, speculate: int = 1) -> Tensor:
        """Return our tokens (B, T)."""
        sequences = _sequences(what, greedy=greedy)
        run_all(self.engine(what, speculate), sequences)
        return torch.tensor([sequence.token_ids for sequence in sequences])

    @torch.inference_mode()
    def paint(self, what: Drawing, tokens: Tensor) -> Tensor:
        """Return our pictures (B, C, h, w) of tokens (B, T)."""
        vocabulary = self.ours.config.vocabulary
        assert vocabulary is not None
        codes = np.stack([Grid(*what.grid).chosen(ids) for ids in tokens.tolist()]) - vocabulary.first_visual
        return self.ours.vqmodel.decode(torch.from_numpy(codes))

    def compare(self, what: Drawing) -> None:
        """Refuse to go on where a greedy picture differs."""
        expected, drawn = recipe.draw(self.theirs, what, greedy=True), self.draw(what, greedy=True)
        assert torch.equal(drawn, expected), f"{(drawn != expected).sum()} of {expected.numel()} greedy tokens differ"
        pictures = recipe.paint(self.theirs, expected, what.grid)
        difference = (self.paint(what, drawn) - pictures).abs().max() / pictures.abs().max()
        assert difference < 1e-4, f"the painted pictures differ by {difference:.1e} of their greatest number"


def measure(case: Case, batches: list[int], rounds: int, windows: list[int]) -> bool:
    """Compare and time both sides, and ours with guesses; return whether drawing reaches its floor in every batch."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        theirs = recipe.write_checkpoint(Path(folder), case.vocabulary)
        ours = load_model(folder, device="cpu")
    assert isinstance(ours, Emu3Model)
    both, is_reached = Both(ours, theirs), True
    for pictures in batches:
        both.compare(recipe.drawing(pictures, COMPARED))
        what = recipe.drawing(pictures, case.grid)
        times = [_times(both, what) for _ in range(rounds)]
        draw = statistics.median(one["their_draw"] / one["our_draw"] for one in times)
        paint = statistics.median(one["their_paint"] / one["our_paint"] for one in times)
        seconds = {name: round(statistics.median(one[name] for one in times) / pictures, 3) for name in times[0]}
        is_reached &= draw >= case.floor
        about = {"case": case.name, "pictures": pictures}
        _tell(about, draw=round(draw, 2), floor=case.floor, goal=case.goal, paint=round(paint, 2))
        _tell(about, draw_of_each_round=[round(one["their_draw"] / one["our_draw"], 2) for one in times])
        _tell(about, seconds_per_picture=seconds)
        for window in windows:
            _tell(about, speculate=window, **_guessed(both, what, window, rounds))
        for side, told in _watched(both, what).items():
            _tell(about, percent_of=side, **told)
        for side, told in _counted(both, what).items():
            _tell(about, counted_of=side, **told)
    return is_reached


def _times(both: Both, what: Drawing) -> dict[str, float]:
    """Return CPU seconds for one batch."""
    their_draw, tokens = _timed(lambda: recipe.draw(both.theirs, what))
    our_draw, drawn = _timed(lambda: both.draw(what))
    their_paint, _ = _timed(lambda: recipe.paint(both.theirs, tokens, what.grid))
    our_paint, _ = _timed(lambda: both.paint(what, drawn))
    return {"our_draw": our_draw, "their_draw": their_draw, "our_paint": our_paint, "their_paint": their_paint}


def _guessed(both: Both, what: Drawing, window: int, rounds: int) -> dict[str, Any]:
    """Return how much faster windows of guesses draw the same tokens, in turn with none, and in how many steps."""
    ratios, steps = [], []
    for _ in range(rounds):
        plain, expected = _timed(lambda: both.draw(what))
        guessed, drawn = _timed(lambda: both.draw(what, speculate=window))
        assert torch.equal(drawn, expected), "guesses changed a picture"
        ratios.append(plain / guessed)
    for speculate in (1, window):
        with _shapes(both.ours, "decode") as forwards:
            both.draw(what, speculate=speculate)
        steps.append(len(forwards))
    return {"draw": round(statistics.median(ratios), 2), "steps": round(steps[0] / steps[1], 2)}


def _timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def _watched(both: Both, what: Drawing) -> dict[str, dict[str, float]]:
    """Return where each side's time goes, in percent of its own."""
    ours, theirs = Stopwatch(), Stopwatch()
    with theirs.watching(both.their_parts()):
        recipe.draw(both.theirs, what)
    with ours.watching(both.our_parts()):
        both.draw(what)
    return {"ours": ours.percent(), "theirs": theirs.percent()}


def _counted(both: Both, what: Drawing) -> dict[str, dict[str, float]]:
    """Return what each side computes for a batch; where they differ, something is saved."""
    engine = both.engine(what)
    with _shapes(both.ours, "decode") as forwards, _shapes(both.ours, "logits") as scores:
        run_all(engine, _sequences(what))
    stores = (*engine._cache.keys, *engine._cache.values)
    ours = _sums(forwards, scores, sum(store.nbytes for store in stores))
    body, head = both.theirs.model.text_model, both.theirs.lm_head
    with _shapes(body, "forward") as forwards, _shapes(head, "forward") as scores, _their_caches() as caches:
        recipe.draw(both.theirs, what)
    theirs = _sums(forwards, scores, sum(dict(caches).values()))
    pictures = len(what.prompts)
    return {
        "ours": {"prompts_prefilled": engine.num_prefilled, "tokens_of_a_picture": what.num_tokens, **ours},
        "theirs": {"prompts_prefilled": 2 * pictures, "tokens_of_a_picture": what.num_tokens, **theirs},
    }


def _sums(forwards: list[tuple[int, ...]], scores: list[tuple[int, ...]], cache_bytes: int) -> dict[str, float]:
    """Return sums of shapes: of hidden states (B, T, D), the prompts' among them, and of scores (B, ..., V)."""
    return {
        "forwards": len(forwards),
        "tokens_through_the_body": sum(B * T for B, T, _ in forwards),
        "times_the_head": len(scores),
        "ids_scored_each_time": round(sum(map(math.prod, scores)) / sum(math.prod(shape[:-1]) for shape in scores)),
        "scores": sum(map(math.prod, scores)),
        "cache_mb": round(cache_bytes / 1e6, 1),
    }


def _shapes(owner: Any, name: str) -> AbstractContextManager[list[tuple[int, ...]]]:
    """Give the shapes of what a module returns."""
    return seen(owner, name, lambda _, out: tuple(getattr(out, "last_hidden_state", out).shape))


def _their_caches() -> AbstractContextManager[list[tuple[tuple[int, int], int]]]:
    """Give, by cache and layer, how many bytes of keys and values there are after each update."""
    return seen(DynamicCache, "update", lambda args, out: ((id(args[0]), args[3]), sum(one.nbytes for one in out)))


def _sequences(what: Drawing, *, greedy: bool = False) -> list[Sequence]:
    def sequence(seed: int, ids: Any) -> Sequence:
        given = ModelInput("", ids, layout=what.grid, negative=what.negative, num_new_tokens=what.num_tokens)
        temperature = 0.0 if greedy else 1.0
        sampling = Sampling(temperature=temperature, top_k=recipe.TOP_K, seed=seed, guidance_scale=recipe.SCALE)
        return Sequence("", given, sampling)

    return [sequence(seed, ids) for seed, ids in enumerate(what.prompts)]


def _tell(about: Mapping[str, Any], **values: Any) -> None:
    print(json.dumps({**about, **values, "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speculate", type=int, nargs="*", default=[], help="windows of guesses to try as well")
    parser.add_argument("--quick", action="store_true", help="small pictures, to see whether it runs at all")
    arguments = parser.parse_args()
    windows = arguments.speculate
    cases = [case for case in CASES if arguments.case in (None, case.name)]
    reached = [
        measure(
            replace(case, grid=COMPARED) if arguments.quick else case, arguments.pictures, arguments.rounds, windows
        )
        for case in cases
    ]
    sys.exit(0 if all(reached) else "drawing is below its floor")
