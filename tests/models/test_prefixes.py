"""Prompts that begin alike: the beginning goes through the decoder once, and who shares it changes no answer."""

from collections.abc import Sequence as Ordered
from dataclasses import replace

import numpy as np
import pytest
from torch import Tensor

from models.cache.slots import CacheView
from models.capacity.out_of_memory import OutOfMemory
from models.engine import Engine, Sequence, engine, run_all
from models.engine.prefixes import LEAST_TOKENS, shared_prefix
from models.types import Completion, ModelInput, Sampling
from tests.models.test_engine import SPOILT, Toy
from tests.models.test_engine_memory import Tight
from tests.models.test_guidance import Painter, picture

MAX_LENGTH = 192


def begun(start: int, length: int = 70) -> list[int]:
    """Return what prompts begin with."""
    return [(start + 7 * i) % 30 for i in range(length)]


def question(shared: Ordered[int], *own: int, sampling: Sampling | None = None, **given: object) -> Sequence:
    ids = np.array([*shared, *own], np.int32)
    made = replace(ModelInput("", ids, shared_length=len(shared)), **given)
    return Sequence("", made, sampling or Sampling(max_new_tokens=6))


def company() -> list[Sequence]:
    """Return questions of three beginnings in any order, some by themselves, some with choices to be scored."""
    starts = [begun(1), begun(2, 100), begun(3, 64)]
    made = []
    for i in range(15):
        sampling = Sampling(max_new_tokens=3 + i % 4, temperature=i % 3, seed=i)
        own = [i, *range(i % 7)]
        made.append(question(starts[i * 2 % 3], *own, sampling=sampling))
        if i % 4 == 0:
            choices = tuple(np.array(ids, np.int32) for ids in ([5, 6, 7], [8, i], [3]))
            made.append(question(starts[i % 3], *own, choices=choices if i % 8 else choices[2:]))
        if i % 5 == 0:
            made.append(question((), *own, sampling=sampling))
    return made


def answers(toy: Toy, sequences: Ordered[Sequence], slots: int = 4) -> list[Completion]:
    run_all(Engine(toy, slots=slots, max_length=MAX_LENGTH), sequences)
    assert [one.error for one in sequences] == [None] * len(sequences)
    return [one.completion for one in sequences if one.completion is not None]


def assert_same(found: Ordered[Completion], expected: Ordered[Completion]) -> None:
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-5)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_who_shares_a_beginning_changes_no_answer(toy: Toy, slots: int) -> None:
    alone = [answers(toy, [one], slots=1)[0] for one in company()]
    assert_same(answers(toy, company(), slots), alone)
    assert_same(answers(toy, company()[::-1], slots)[::-1], alone)


def test_a_prompt_that_is_cut_is_answered_as_in_one_piece(toy: Toy) -> None:
    whole = company()
    for one in whole:
        one.model_input = replace(one.model_input, shared_length=0)
    assert_same(answers(toy, company()), answers(toy, whole))


@pytest.mark.parametrize("tokens", [8, 100])
def test_small_chunks_change_no_answer(toy: Toy, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(toy, company())
    monkeypatch.setattr(engine, "PREFILL_TOKENS", tokens)
    assert_same(answers(toy, company()), expected)


def test_a_beginning_goes_through_once_for_all_who_share_it_however_late(toy: Toy) -> None:
    batching = Engine(toy, slots=2, max_length=MAX_LENGTH)
    run_all(batching, [question(begun(1), 5, n) for n in range(6)])
    assert (batching.num_asked, batching.num_prefilled) == (6 * 72, 64 + 6 * 8)
    run_all(batching, [question(begun(1), 9)])
    assert (batching.num_asked, batching.num_prefilled) == (6 * 72 + 71, 64 + 6 * 8 + 7)


@pytest.mark.parametrize(
    ("shared", "length", "expected"),
    [(70, 72, 64), (64, 65, 64), (64, 64, None), (63, 90, None), (100, 90, 80), (0, 90, None)],
)
def test_a_prompt_is_cut_in_whole_blocks_and_never_behind_its_last_token(
    shared: int, length: int, expected: int | None
) -> None:
    given = ModelInput("", np.arange(length, dtype=np.int32), shared_length=shared)
    prefix = shared_prefix(given)
    assert (prefix and prefix.length) == expected
    assert expected is None or expected >= LEAST_TOKENS


def test_equal_tokens_about_other_pictures_are_another_beginning() -> None:
    one, other, again = (
        ModelInput("", np.zeros(80, np.int32), shared_length=70, image_names=(name,)) for name in ("a", "b", "a")
    )
    assert shared_prefix(one) == shared_prefix(again) != shared_prefix(other)


def test_what_is_kept_does_not_grow_with_the_rows(toy: Toy) -> None:
    batching = Engine(toy, slots=32, max_length=MAX_LENGTH)
    kept = batching._prefixes
    assert kept._kept_bytes == toy.cache_shape.num_bytes(32, MAX_LENGTH) // 8  # of 32 slots, four
    for n in range(60):
        run_all(batching, [question([n // 2, *begun(3, 127)], 1, 2)])
        assert kept._size == sum(prefix.cached.nbytes for prefix in kept._kept.values()) <= kept._kept_bytes
        tensors = [tensor for prefix in kept._kept.values() for tensor in (*prefix.cached.keys, prefix.hidden)]
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    assert len(kept._kept) == 6
    assert batching.num_prefilled == 30 * 128 + 60 * 2


def test_a_single_slot_keeps_the_longest_beginning_there_is(toy: Toy) -> None:
    batching = Engine(toy, slots=1, max_length=MAX_LENGTH)
    run_all(batching, [question(begun(1, MAX_LENGTH - 16), n) for n in range(3)])
    assert batching.num_prefilled == MAX_LENGTH - 16 + 3


def test_no_more_is_held_at_once_than_goes_through_at_once(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 128)
    batching = Engine(toy, slots=16, max_length=MAX_LENGTH)
    found: list[int] = []
    find = batching._prefixes._find

    def counted(*given: object) -> object:
        prefixes = find(*given)
        found.append(len({id(prefix) for prefix in prefixes.values()}))
        return prefixes

    monkeypatch.setattr(batching._prefixes, "_find", counted)
    run_all(batching, [question(begun(n % 8), n) for n in range(16)])
    assert found == [2, 2, 2, 2]
    assert batching.num_prefilled == 8 * 64 + 16 * 7


def test_a_spoilt_beginning_costs_those_who_share_it_and_nobody_after_them(toy: Toy) -> None:
    expected = answers(toy, company())
    batching = Engine(toy, slots=3, max_length=MAX_LENGTH)
    bad = [question([*begun(4), SPOILT, *begun(5)], n) for n in range(4)]
    fine = company()
    run_all(batching, [*bad[:2], *fine[:4], *bad[2:], *fine[4:]])
    assert all(isinstance(one.error, ArithmeticError) for one in bad)
    assert_same([one.completion for one in fine if one.completion is not None], expected)


def test_a_beginning_that_never_fits_costs_those_who_share_it() -> None:
    class Short(Painter):
        def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
            if int(cache_view.positions.max()) >= 150:
                raise MemoryError("no room for so long a prompt")
            return super().decode(embeddings, cache_view)

    fine, large = company(), [question(begun(1, 165), n) for n in range(3)]
    batching = Engine(Short(), slots=4, max_length=MAX_LENGTH)
    run_all(batching, [*fine[:3], *large, *fine[3:]])
    assert [str(one.error) for one in large] == [
        "the cpu has too little memory for a prompt of 166 tokens and 0 tiles, even alone"
    ] * 3
    assert all(isinstance(one.error, OutOfMemory) for one in large) and batching.num_running == 0
    assert_same([one.completion for one in fine if one.completion is not None], answers(Toy(), company()))


def test_a_beginning_that_goes_through_in_smaller_chunks_is_kept_for_nobody() -> None:
    large = [question(begun(1, 130), n) for n in range(3)]
    tight = Tight(chunk=100)
    batching = Engine(tight, slots=4, max_length=MAX_LENGTH)
    run_all(batching, large)
    assert tight.num_refused > 0 and not batching._prefixes._kept
    whole = answers(Painter(), [question(begun(1, 130), n) for n in range(3)])
    assert_same([one.completion for one in large if one.completion is not None], whole)


@pytest.mark.parametrize(
    "room", [{"prefill": 112}, {"rows": 1}, {"late_rows": 1}, {"prefill": 112, "rows": 2}], ids=str
)
def test_less_room_changes_no_answer(room: dict[str, int]) -> None:
    tight = Tight(**room)
    assert_same(answers(tight, company(), slots=8), answers(Painter(), company(), slots=8))
    assert tight.num_refused > 0


def test_what_is_kept_is_let_go_where_memory_is_short() -> None:
    class Full(Painter):
        engine: Engine

        def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
            if embeddings.shape[1] == 48 and self.engine._prefixes._kept:
                raise MemoryError("what is kept takes too much")
            return super().decode(embeddings, cache_view)

    full = Full()
    batching = full.engine = Engine(full, slots=2, max_length=MAX_LENGTH)
    run_all(batching, [question(begun(1), 1)])
    large = question((), *begun(2, 40))
    run_all(batching, [large])
    assert large.completion is not None and batching.num_out_of_memory == 1


def test_negative_prompts_and_beginnings_share_one_way(toy: Toy) -> None:
    painter = Painter()
    batching = Engine(painter, slots=8, max_length=MAX_LENGTH)
    negative = begun(6, 65)
    mixed = [picture([3, n], (2, 2), negative) for n in range(3)] + [question(negative, n) for n in range(3)]
    run_all(batching, mixed)
    assert batching.num_prefilled == 65 + 3 * 2 + 64 + 3 * 2
    alone = [picture([3, 2], (2, 2), negative), question(negative, 1)]
    for one, other in zip(alone, (mixed[2], mixed[4]), strict=True):
        assert_same([other.completion], answers(painter, [one], slots=2))
