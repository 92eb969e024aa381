"""How an answer is sampled is checked before a model is loaded for it, by the rules that a run's settings have too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import Request, Sampling, ask
from models.sampler import Draws, choose
from models.sampling import LEAST_TEMPERATURE, check_sampling
from models.types import BadRequest
from tests.tiny import tiny_aria

IMPOSSIBLE: tuple[tuple[str, Any], ...] = (
    ("max_new_tokens", 0), ("max_new_tokens", -3), ("max_new_tokens", 1.5), ("max_new_tokens", None),
    ("max_new_tokens", True), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", -0.5),
    ("temperature", 5e-324), ("temperature", 1e-40), ("temperature", "0.5"), ("top_k", -1), ("top_k", 2.0),
    ("top_p", 0.0), ("top_p", 1.0001), ("top_p", float("nan")), ("seed", -1), ("seed", 2**63), ("seed", 0.5),
    ("stop", "###"), ("stop", ("",)), ("stop", (1,)), ("guidance_scale", 1001), ("guidance_scale", float("nan")),
    ("guidance_scale", float("inf")),
)  # fmt: skip


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_what_cannot_be_sampled_by_is_named_with_its_request(tmp_path: Path, name: str, value: Any) -> None:
    folder = str(tiny_aria(tmp_path))
    (tmp_path / "model.safetensors").unlink()  # no weight is needed to see it
    bad = replace(Sampling(), **{name: value})
    with pytest.raises(BadRequest, match=rf"^request 1 \('b'\): sampling\.{name}: found .*, expected "):
        ask(folder, [Request(prompt="yes"), Request(key="b", prompt="yes", sampling=bad)])


def test_all_of_it_is_named_at_once() -> None:
    with pytest.raises(BadRequest, match=r"^sampling\.temperature: .*; sampling\.top_p: "):
        check_sampling(Sampling(temperature=-1, top_p=2))


def test_numbers_of_numpy_and_lists_of_texts_are_as_good() -> None:
    stop: Any = ["a"]
    check_sampling(Sampling(np.int64(3), np.float32(0.5), np.int32(4), np.float32(0.5), 2**63 - 1, stop, 1))


def test_the_least_temperature_takes_the_likeliest_token_and_a_lesser_one_does_not() -> None:
    logits = torch.tensor([[-1e4, 3e4, 5e4, 4e4]])
    least = Sampling(temperature=LEAST_TEMPERATURE, seed=1)
    for sampling, is_right in ((least, True), (replace(least, temperature=1e-40), False)):
        ids, _ = choose(logits, Draws.of([sampling], logits.device), torch.tensor([0]))
        assert (ids.tolist() == [2]) is is_right
