"""What tokens see beside their own sequence: shared, let go in time, and no business of the neighbours."""

import gc
import weakref
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.cache.memory import answer_memory, decode_memory_view, prefill_memory_view
from models.cache.slots import Cache, CacheView, decode_cache_view, prefill_cache_view
from models.config import DecoderConfig, FamilyConfig
from models.engine import Engine, Memory, Prompt, Sequence, Span, run_all
from models.engine import engine as engine_file
from models.layers import rotary_frequencies
from models.llama import DecoderLayer, FamilyModel, LanguageModel, SwiGLU
from models.tiles import ImageCache
from models.types import ModelInput, Sampling

CPU = torch.device("cpu")
# A CPU takes 32 numbers at a time and rounds what is left over differently, so widths come in whole steps.
K, C, D, V = 2, 8, 32, 50


SIZE = DecoderConfig(
    vocab_size=V, hidden_size=D, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=K, head_dim=C, rope_theta=100.0, rms_norm_eps=1e-5, max_position_embeddings=9000,
)  # fmt: skip


class Looking(torch.nn.Module):
    """A layer that adds what its tokens see."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = torch.nn.RMSNorm(D)

    def forward(self, x: Tensor, _: object, cache_view: CacheView) -> Tensor:
        if cache_view.memory is None:
            return x
        return x + cache_view.memory.attend(0, x.unflatten(-1, (-1, C)).transpose(1, 2))


class Toy(FamilyModel):
    """A decoder that sees pictures: `layout` numbers the picture, and the first token is its place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.config = FamilyConfig(SIZE, None, frozenset(), "float32")
        own = {place: DecoderLayer(SIZE, number, SwiGLU(D, 32)) for number, place in enumerate((0, 2))}
        layers = {0: own[0], 1: Looking(), 2: own[2]}
        self.language_model = LanguageModel(SIZE, layers, rotary_frequencies(C, 100.0), V)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.5) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
        self.image_cache: ImageCache[Memory] = ImageCache(kept_bytes=0)

    def prompt(self, inputs: Ordered[ModelInput]) -> list[Prompt]:
        names = [str(number) for i in inputs for number in i.layout]
        memories = self.image_cache.find(names, lambda new: [picture(int(name)) for name in new])
        return [
            Prompt(
                self.embed(torch.tensor(i.token_ids).long()),
                [Span(int(i.token_ids[0]), None, memories[str(number)]) for number in i.layout],
            )
            for i in inputs
        ]


def picture(number: int) -> Memory:
    generator = torch.Generator().manual_seed(number)
    size = 5 + number % 3
    keys, values = (torch.randn(K, size, C, generator=generator) for _ in range(2))
    return Memory((keys,), (values,))


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


def asked(ids: list[int], *pictures: int, tokens: int = 6) -> Sequence:
    return Sequence("", ModelInput("", np.array(ids, np.int32), layout=pictures), Sampling(max_new_tokens=tokens))


def answers(toy: Toy, sequences: list[Sequence], slots: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    run_all(Engine(toy, slots=slots, max_length=9000), sequences)
    assert all(sequence.error is None for sequence in sequences)
    return [(s.completion.token_ids, s.completion.logprobs) for s in sequences if s.completion is not None]


def rows() -> list[Sequence]:
    """Return prompts that see one picture, the same, another, or none, from the start or from later on."""
    made = [
        asked([0, 5, 6, 7], 1),
        asked([2, 9, 8], 1),
        asked([0, 5, 6, 7], 2),
        asked([3, 4, 4, 4, 4]),
        asked([1, 2], 1),
    ]
    return [replace(s, sampling=Sampling(max_new_tokens=4 + 3 * i)) for i, s in enumerate(made)]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_what_neighbours_see_changes_no_bit_of_an_answer(toy: Toy, slots: int) -> None:
    alone = [answers(toy, [row], 1)[0] for row in rows()]
    assert answers(toy, rows(), slots) == alone
    assert alone[0] != alone[2]  # the picture matters


def test_a_prompt_longer_than_one_chunk_sees_its_picture_in_each(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [20, *(i % V for i in range(70))]
    [(whole, whole_logprobs)] = answers(toy, [asked(ids, 1)], 1)
    monkeypatch.setattr(engine_file, "PREFILL_TOKENS", 16)
    [(chunked, logprobs)] = answers(toy, [asked(ids, 1)], 1)
    assert chunked == whole
    assert logprobs == pytest.approx(whole_logprobs, abs=1e-5)


def test_tokens_before_a_picture_and_after_its_span_do_not_see_it() -> None:
    memory = picture(1)
    query = torch.randn(2, 4, 6, C)
    view = prefill_memory_view([[Span(2, 4, memory)], []], range(6), CPU)
    assert view is not None
    found = view.attend(0, query)
    assert found[0, 2:4].abs().min() > 0
    assert not found[0, :2].any() and not found[0, 4:].any() and not found[1].any()
    assert view.attends[..., 0].tolist() == [[False, False, True, True, False, False], [False] * 6]


def test_a_chunk_behind_a_span_sees_nothing() -> None:
    assert prefill_memory_view([[Span(2, 4, picture(1))]], range(4, 12), CPU) is None
    assert prefill_memory_view([[]], range(8), CPU) is None
    assert decode_memory_view([None, None], 1, CPU) is None


def test_what_is_found_is_plain_attention() -> None:
    memory, query = picture(2), torch.randn(1, 4, 3, C)
    view = prefill_memory_view([[Span(0, None, memory)]], range(3), CPU)
    assert view is not None
    keys, values = (store[0].repeat_interleave(2, dim=0) for store in (memory.keys, memory.values))
    weights = (query[0] @ keys.transpose(1, 2) * C**-0.5).softmax(-1)
    expected = (weights @ values).transpose(0, 1).flatten(1)
    torch.testing.assert_close(view.attend(0, query)[0], expected, atol=1e-5, rtol=1e-5)


def test_only_a_span_without_an_end_lasts() -> None:
    first, second = picture(1), picture(2)
    assert answer_memory([Span(0, 3, first), Span(3, None, second)]) is second
    assert answer_memory([Span(0, 3, first)]) is None


def test_a_picture_is_made_once_for_all_who_ask_and_let_go_after_the_last(toy: Toy) -> None:
    toy.image_cache.num_encoded = 0
    engine = Engine(toy, slots=2, max_length=64)
    sequences = [asked([0, i + 1], 7, tokens=3 + i) for i in range(5)]
    for sequence in sequences:
        engine.submit(sequence)
    engine.step()
    memories = [branch.memory for branch in engine._scheduler.running]
    assert memories[0] is not None and memories[0] is memories[1]
    held = weakref.ref(memories.pop())
    memories.clear()
    while not engine.is_idle:
        engine.step()
    gc.collect()
    assert toy.image_cache.num_encoded == 1
    assert held() is None  # though the finished sequences are still here


def test_what_ended_sequences_saw_is_gone_before_the_next_picture_is_made(toy: Toy) -> None:
    engine = Engine(toy, slots=2, max_length=64)
    first = [asked([0, 1], 3, tokens=2), asked([0, 2], 4, tokens=30)]
    for sequence in first:
        engine.submit(sequence)
    assert engine.step() == [first[0]]
    assert engine._scheduler.running[0].memory is not None
    gc.collect()
    assert set(toy.image_cache._held) == {"4"}


def test_one_prompt_that_fails_leaves_nothing_of_the_batch_behind(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []

    def make(number: int) -> Memory:
        gc.collect()
        left.append(len(toy.image_cache._held))
        if number == 9:
            raise RuntimeError("no such picture")
        return picture(number)

    monkeypatch.setattr(toy, "prompt", lambda inputs: [p for i in inputs for p in _prompts(toy, i, make)])
    engine = Engine(toy, slots=3, max_length=64)
    sequences = [asked([0, 1], number, tokens=2) for number in (5, 9, 6)]
    run_all(engine, sequences)
    assert [type(s.error).__name__ for s in sequences] == ["NoneType", "RuntimeError", "NoneType"]
    # Five, nine; then one by one: five, nine (five is held by its prompt), six.
    assert left == [0, 1, 0, 1, 1]


def _prompts(toy: Toy, given: ModelInput, make: Callable[[int], Memory]) -> list[Prompt]:
    [number] = given.layout
    memories = toy.image_cache.find([str(number)], lambda _: [make(number)])
    return [Prompt(toy.embed(torch.tensor(given.token_ids).long()), [Span(0, None, memories[str(number)])])]


@pytest.mark.parametrize("away", ["012", "12", "2"])
def test_layers_may_lie_elsewhere_the_first_one_too(away: str) -> None:
    toy, memory = Toy(), picture(1)
    for name in away:
        toy.language_model.model.layers[name].to("meta")
    if "1" in away:
        memory = Memory(tuple(k.to("meta") for k in memory.keys), tuple(v.to("meta") for v in memory.values))
    cache, ids = Cache(toy.cache_shape, 2, 64), torch.tensor([[1, 2, 3], [4, 5, 6]])
    seen = prefill_memory_view([[Span(1, None, memory)], []], range(3), CPU)
    cache_view = prefill_cache_view(cache, slice(0, 2), range(3), toy.device, seen)
    toy.language_model.model.norm.to("meta")  # from there no number comes back, and an operation with two devices fails
    assert toy.decode(toy.embed(ids), cache_view).device.type == "meta"
    view = decode_memory_view([memory, None], 1, CPU)
    places = torch.tensor([[3], [3]])
    cache_view = decode_cache_view(cache, places, places, [4, 4], view)
    assert toy.decode(toy.embed(ids[:, :1]), cache_view).shape == (2, 1, D)
    assert view is not None and view.to(torch.device("meta")) is view.to(torch.device("meta"))


def made(calls: list[list[str]]) -> Callable[[Ordered[str]], list[Tensor]]:
    def encode(names: Ordered[str]) -> list[Tensor]:
        calls.append(list(names))
        return [torch.full((4,), float(len(name))) for name in names]

    return encode


def test_what_was_seen_lately_is_not_encoded_again() -> None:
    calls: list[list[str]] = []
    seen: ImageCache[Tensor] = ImageCache(kept_bytes=32)  # two of them
    seen.find(["a", "bb", "a"], made(calls))
    assert list(seen.find(["bb", "ccc"], made(calls))) == ["bb", "ccc"]
    seen.find(["bb"], made(calls))
    seen.find(["a"], made(calls))  # pushed out by ccc
    assert calls == [["a", "bb"], ["ccc"], ["a"]]
    assert seen.num_encoded == 4


def test_what_somebody_holds_is_found_however_old_it_is() -> None:
    calls: list[list[str]] = []
    seen: ImageCache[Tensor] = ImageCache(kept_bytes=16)
    held = seen.find(["a"], made(calls))["a"]
    seen.find(["b"], made(calls))
    assert seen.find(["a"], made(calls))["a"] is held
    assert calls == [["a"], ["b"]]
