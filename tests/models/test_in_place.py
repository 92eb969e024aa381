"""Attention in place equals attention behind a mask: the kernel in Triton's interpreter, and engines that use it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.cache import memory, slots
from models.cache.slots import CacheView
from models.engine import Engine, Sequence, engine, prefill, run_all
from models.kernels import in_place
from models.kernels.in_place import attend_in_place, tables
from models.types import Sampling
from tests.models import test_memory, test_prefixes
from tests.models.test_engine import Toy, answers, company, ids_of, sequence
from tests.models.test_guidance import Painter, pictures

pytest.importorskip("triton", reason="Triton has no wheel for this platform; its interpreter runs the kernels here")


def expected(query: Tensor, keys: Tensor, values: Tensor, ends: Tensor) -> Tensor:
    seen = (torch.arange(keys.shape[2]) < ends[..., None])[:, None]
    found = F.scaled_dot_product_attention(query.float(), keys.float(), values.float(), attn_mask=seen, enable_gqa=True)
    return found.nan_to_num().transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(
    ("heads", "key_heads", "tokens", "width", "places"),
    [(8, 2, 1, 32, 700), (8, 2, 2, 16, 1100), (4, 4, 1, 64, 64), (5, 5, 2, 20, 130)],
)
def test_the_kernel_gives_what_a_mask_gives(
    dtype: torch.dtype, tolerance: float, heads: int, key_heads: int, tokens: int, width: int, places: int
) -> None:
    generator = torch.Generator().manual_seed(places)
    keys, values = torch.randn(2, 3, key_heads, places, width, generator=generator).to(dtype)
    query = torch.randn(3, heads, tokens, width, generator=generator).to(dtype)
    ends = torch.tensor([[0], [places - tokens], [places // 3]]) + torch.arange(tokens)
    found = attend_in_place(query, tables(keys, values), ends, key_heads, places)
    assert found.dtype == dtype
    assert (found - expected(query, keys, values, ends)).abs().max() < tolerance
    if tokens == 1:
        assert found[0].abs().max() == 0, "who sees nothing gets zeros"


def test_rows_may_have_places_of_their_own_number_and_share_them() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, size, 8, generator=generator) for size in (600, 20))
    rows = [one, other, one]
    ends = torch.tensor([[600], [20], [300]])
    query = torch.randn(3, 4, 1, 8, generator=generator)
    found = attend_in_place(query, tables(rows, rows), ends, 2, 600)
    for row, keys in enumerate(rows):
        alone = expected(query[row : row + 1], keys[None], keys[None], ends[row : row + 1])
        assert torch.allclose(found[row : row + 1], alone, atol=1e-6)


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let engines read in place on a CPU; note how many rows each call had."""
    calls: list[int] = []

    def attend(query: Tensor, *rest: object) -> Tensor:
        calls.append(len(query))
        return attend_in_place(query, *rest)

    for module in (slots, memory):
        monkeypatch.setattr(module, "reads_in_place", lambda device: True)
        monkeypatch.setattr(module, "attend_in_place", attend)
    return calls


def texts() -> list[Sequence]:
    return company(1.0)[:4]


def drawn() -> list[Sequence]:
    return pictures(temperature=1.0, top_k=5)[:4]


@pytest.mark.parametrize(("model", "wishes"), [(Toy, texts), (Painter, drawn)], ids=["text", "guided"])
def test_an_engine_answers_as_it_does_behind_a_mask(model: type[Toy], wishes: object, request: object) -> None:
    assert callable(wishes)
    behind = ids_of(answers(model(), wishes(), slots=5))
    masks: list[Tensor | None] = []

    class Watched(model):
        def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
            masks.append(cache_view.mask)
            return super().decode(embeddings, cache_view)

    assert isinstance(request, pytest.FixtureRequest)
    calls = request.getfixturevalue("placed")
    assert ids_of(answers(Watched(), wishes(), slots=5)) == behind
    assert max(calls) >= 4 and all(mask is None for mask in masks)


@pytest.mark.parametrize(("tokens", "packed"), [(4096, 2048), (64, 2048), (128, 74)])
def test_prompts_of_unlike_lengths_behind_what_they_share_go_through_together(
    tokens: int, packed: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = test_prefixes.answers(Toy(), test_prefixes.company()[:8], slots=8)
    request.getfixturevalue("placed")
    monkeypatch.setattr(engine, "PREFILL_TOKENS", tokens)
    monkeypatch.setattr(prefill, "MOST_PACKED", packed)
    found = test_prefixes.answers(Toy(), test_prefixes.company()[:8], slots=8)
    test_prefixes.assert_same(found, behind)


def test_a_forward_has_as_many_blocks_as_the_prompts_in_it(placed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 96)
    run_all(Engine(Toy(), slots=8, max_length=64), [sequence([1] * n, tokens=1) for n in (3, 33, 16, 50, 20, 17)])
    # By length: 1 block and 1, then 2, 2 fill a forward of 6, and 3 and 4 are too much for one.
    assert placed == [6, 6, 3, 3, 4, 4], "of two layers each"


def test_all_pictures_of_a_step_are_seen_in_one_call(placed: list[int]) -> None:
    toy = test_memory.Toy()

    def answered() -> list[Sequence]:
        rows = [replace(one, sampling=Sampling(max_new_tokens=3)) for one in test_memory.rows()]
        run_all(Engine(toy, slots=5, max_length=64), rows)
        return rows

    found = answered()
    assert max(placed) == 5
    with pytest.MonkeyPatch.context() as patch:
        for module in (slots, memory):
            patch.setattr(module, "reads_in_place", in_place.reads_in_place)
        behind = answered()
    for one, other in zip(found, behind, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
