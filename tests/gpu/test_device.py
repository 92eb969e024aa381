"""On a real GPU, `pytest -m gpu tests/gpu`: tiny models answer as on a CPU, and a step waits no more than is counted.

It needs torch, numpy, pillow, safetensors, tokenizers, jinja2, pytest and pytest-timeout, and neither Ray nor pydantic.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import Family, Sampling
from models.capacity.room import choose_slots
from models.engine import Engine, Sequence, run_all
from models.layers import attend
from models.types import ModelInput
from tests.gpu.questions import DRAWING, GREEDY, GRID, answered, decoding, tiny_model

pytestmark = pytest.mark.gpu

SAMPLINGS = (
    Sampling(max_new_tokens=9),
    Sampling(max_new_tokens=6, temperature=1.0, seed=3),
    Sampling(max_new_tokens=9, temperature=1.0, top_k=8),
    Sampling(max_new_tokens=7, temperature=1.0, top_k=50, top_p=0.8, seed=1),
)


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """Compute float32 as such: torch lets convolutions take TF32."""
    if not torch.cuda.is_available():
        pytest.exit(f"torch {torch.__version__} sees no GPU here, and `-m gpu` asks for one", returncode=1)
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = allowed


def test_tokens_in_float32_are_those_of_a_cpu(family: Family) -> None:
    there, here = (answered(family, device, SAMPLINGS) for device in ("cuda", "cpu"))
    assert [one.token_ids for one in there] == [one.token_ids for one in here]
    for one, other in zip(there, here, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_pictures_are_drawn_as_on_a_cpu() -> None:
    there, here = (answered("emu3", device, (DRAWING,) * 2) for device in ("cuda", "cpu"))
    assert [one.token_ids for one in there] == [one.token_ids for one in here]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(family: Family, dtype: str) -> None:
    first = (Sampling(max_new_tokens=1),) * 6
    half, whole = (answered(family, "cuda", first, one) for one in (dtype, "float32"))
    near = [abs(one.logprobs[0] - other.logprobs[0]) < 0.3 for one, other in zip(half, whole, strict=True)]
    assert sum(near) >= 5, (half, whole)


def test_choices_are_as_likely_as_on_a_cpu(family: Family) -> None:
    def scores(device: str) -> list[Any]:
        model, random = tiny_model(family, device, "float32"), np.random.default_rng(0)
        choices = tuple(random.integers(20, 100, length).astype(np.int32) for length in (1, 3, 20, 40))
        prompts = [random.integers(20, 100, 9).astype(np.int32) for _ in range(4)]
        rows = [Sequence("", ModelInput("", ids, choices=choices), Sampling()) for ids in prompts]
        run_all(Engine(model, slots=4, max_length=256), rows)
        return [one.completion.choice_logprobs if one.completion else one.error for one in rows]

    for there, here in zip(scores("cuda"), scores("cpu"), strict=True):
        assert there == pytest.approx(here, abs=1e-3)


def test_pictures_become_the_same_codes_and_codes_nearly_the_same_pixels() -> None:
    random = np.random.default_rng(0)
    tile = random.integers(0, 255, (64, 48, 3), dtype=np.uint8)
    there, here = (tiny_model("emu3", device, "float32") for device in ("cuda", "cpu"))
    with torch.inference_mode():
        codes, expected = ([one.tolist() for one in model.encode([tile])] for model in (there, here))
    assert codes == expected
    drawn = random.integers(0, 32, GRID) + here.config.vocabulary.first_visual
    ids = [*np.pad(drawn, ((0, 0), (0, 1))).flatten().tolist(), 0, 0, 0]
    painted, by_cpu = (model.decode_picture(GRID, ids).astype(int) for model in (there, here))
    assert np.abs(painted - by_cpu).max() <= 2


@pytest.mark.parametrize(
    ("family", "sampling"), [("aria", GREEDY), ("mllama", GREEDY), ("emu3", GREEDY), ("emu3", DRAWING)]
)
def test_a_step_waits_no_more_than_the_make_believe_counts(family: Family, sampling: Sampling) -> None:
    engine = decoding(tiny_model(family, "cuda", "bfloat16"), family, 4, sampling)
    torch.cuda.set_sync_debug_mode("warn")  # it misses some waits, so there may be fewer
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in seen if "synchroniz" in str(one.message)]
    assert len(waits) <= 1, waits


def test_a_later_chunk_of_a_long_prompt_keeps_no_scores() -> None:
    # Of grouped heads with a mask torch would keep all of them: 4 GB for 4,096 tokens behind 4,096.
    query = torch.randn(1, 32, 4096, 128, device="cuda", dtype=torch.bfloat16)
    key, value = torch.randn(2, 1, 8, 8192, 128, device="cuda", dtype=torch.bfloat16)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = attend(query, key, value, None)
    assert torch.cuda.max_memory_allocated() - before < 2**29
    error = (found[:, -64:].float() - by_hand(query[:, :, -64:], key, value)).norm() / found[:, -64:].float().norm()
    assert error < 1e-2


def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention of the last queries (1, H, T, C) to the keys up to their own, in float32."""
    T, S, groups = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    keys, values = (one.float().repeat_interleave(groups, 1) for one in (key, value))
    scores = query.float() @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
    later = torch.ones(T, S, dtype=torch.bool, device=query.device).triu(S - T + 1)
    return (scores.masked_fill(later, -torch.inf).softmax(-1) @ values).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("is_drawing", [False, True])
def test_slots_are_found_out_and_their_cache_has_room(is_drawing: bool) -> None:
    model: Any = tiny_model("emu3", "cuda", "bfloat16")
    slots, why = choose_slots(model, None, 512, is_drawing=is_drawing)
    assert slots == 256 and "there is room for" in why and "GiB to use on cuda:0" in why
    Engine(model, slots=slots, max_length=512)


def test_cudnn_is_left_out_of_attention(family: Family) -> None:
    assert tiny_model(family, "cuda", "bfloat16").device.type == "cuda"
    assert not torch.backends.cuda.cudnn_sdp_enabled()
