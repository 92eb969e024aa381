"""What tokens see beside their own sequence: shared, let go in time, and no business of the neighbours."""

import gc
import weakref
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.engine import Engine, Memory, Prompt, Sequence, Span, run_all
from models.engine import engine as engine_file
from models.engine.cache import CacheShape, Window
from models.engine.memory import decode_sight, lasting, prefill_sight
from models.layers import rotary_frequencies
from models.llama import DecoderLayer, LanguageModel, SwiGLU
from models.tiles import Seen
from models.types import ModelInput, Sampling

CPU = torch.device("cpu")
# A CPU takes 32 numbers at a time and rounds what is left over differently, so widths come in whole steps.
K, C, D, V = 2, 8, 32, 50


@dataclass(frozen=True)
class Size:
    """The toy's numbers; see models.llama.DecoderConfig."""

    vocab_size: int = V
    hidden_size: int = D
    num_attention_heads: int = 4
    num_key_value_heads: int = K
    head_dim: int = C
    rms_norm_eps: float = 1e-5


class Looking(torch.nn.Module):
    """A layer that adds what its tokens see."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = torch.nn.RMSNorm(D)

    def forward(self, x: Tensor, _: object, window: Window) -> Tensor:
        if window.sight is None:
            return x
        return x + window.sight.look(0, x.unflatten(-1, (-1, C)).transpose(1, 2))


class Toy:
    """A decoder that sees pictures: `layout` numbers the picture, and the first token is its place."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        size = Size()
        layers = {0: DecoderLayer(size, 0, SwiGLU(D, 32)), 1: Looking(), 2: DecoderLayer(size, 1, SwiGLU(D, 32))}
        self.decoder = LanguageModel(size, layers, rotary_frequencies(C, 100.0), V)
        for parameter in self.decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.5) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
        self.device = CPU
        self.cache_shape: CacheShape = self.decoder.cache_shape
        self.max_position_embeddings = 9000
        self.seen: Seen[Memory] = Seen(kept_bytes=0)
        self.embed = self.decoder.embed
        self.logits = self.decoder.logits

    def prompt(self, inputs: Ordered[ModelInput]) -> list[Prompt]:
        names = [str(number) for i in inputs for number in i.layout]
        memories = self.seen.find(names, lambda new: [picture(int(name)) for name in new])
        return [
            Prompt(
                self.embed(torch.tensor(i.token_ids).long()),
                [Span(int(i.token_ids[0]), None, memories[str(number)]) for number in i.layout],
            )
            for i in inputs
        ]

    def decode(self, embeddings: Tensor, window: Window) -> Tensor:
        return self.decoder(embeddings, window)


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
    sight = prefill_sight([[Span(2, 4, memory)], []], 0, 6, CPU)
    assert sight is not None
    found = sight.look(0, query)
    assert found[0, 2:4].abs().min() > 0
    assert not found[0, :2].any() and not found[0, 4:].any() and not found[1].any()
    assert sight.sees[..., 0].tolist() == [[False, False, True, True, False, False], [False] * 6]


def test_a_chunk_behind_a_span_sees_nothing() -> None:
    assert prefill_sight([[Span(2, 4, picture(1))]], 4, 8, CPU) is None
    assert prefill_sight([[]], 0, 8, CPU) is None
    assert decode_sight([None, None], CPU) is None


def test_what_is_found_is_plain_attention() -> None:
    memory, query = picture(2), torch.randn(1, 4, 3, C)
    sight = prefill_sight([[Span(0, None, memory)]], 0, 3, CPU)
    assert sight is not None
    keys, values = (store[0].repeat_interleave(2, dim=0) for store in (memory.keys, memory.values))
    weights = (query[0] @ keys.transpose(1, 2) * C**-0.5).softmax(-1)
    expected = (weights @ values).transpose(0, 1).flatten(1)
    torch.testing.assert_close(sight.look(0, query)[0], expected, atol=1e-5, rtol=1e-5)


def test_only_a_span_without_an_end_lasts() -> None:
    first, second = picture(1), picture(2)
    assert lasting([Span(0, 3, first), Span(3, None, second)]) is second
    assert lasting([Span(0, 3, first)]) is None


def test_a_picture_is_made_once_for_all_who_ask_and_let_go_after_the_last(toy: Toy) -> None:
    toy.seen.num_encoded = 0
    engine = Engine(toy, slots=2, max_length=64)
    sequences = [asked([0, i + 1], 7, tokens=3 + i) for i in range(5)]
    for sequence in sequences:
        engine.submit(sequence)
    engine.step()
    assert sequences[0].memory is not None and sequences[0].memory is sequences[1].memory
    held = weakref.ref(sequences[0].memory)
    while not engine.is_idle:
        engine.step()
    gc.collect()
    assert toy.seen.num_encoded == 1
    assert held() is None  # though the finished sequences are still here


def made(calls: list[list[str]]) -> Callable[[Ordered[str]], list[Tensor]]:
    def encode(names: Ordered[str]) -> list[Tensor]:
        calls.append(list(names))
        return [torch.full((4,), float(len(name))) for name in names]

    return encode


def test_what_was_seen_lately_is_not_encoded_again() -> None:
    calls: list[list[str]] = []
    seen: Seen[Tensor] = Seen(kept_bytes=32)  # two of them
    seen.find(["a", "bb", "a"], made(calls))
    assert list(seen.find(["bb", "ccc"], made(calls))) == ["bb", "ccc"]
    seen.find(["bb"], made(calls))
    seen.find(["a"], made(calls))  # pushed out by ccc
    assert calls == [["a", "bb"], ["ccc"], ["a"]]
    assert seen.num_encoded == 4


def test_what_somebody_holds_is_found_however_old_it_is() -> None:
    calls: list[list[str]] = []
    seen: Seen[Tensor] = Seen(kept_bytes=16)
    held = seen.find(["a"], made(calls))["a"]
    seen.find(["b"], made(calls))
    assert seen.find(["a"], made(calls))["a"] is held
    assert calls == [["a"], ["b"]]
