"""The engine on a device whose memory is short: every answer that fits somehow comes, and is the undisturbed one."""

import logging
from collections.abc import Callable
from collections.abc import Sequence as Ordered

import pytest
import torch
from torch import Tensor

from models.cache.slots import CacheView
from models.capacity.out_of_memory import CALLS_BEFORE_GROWTH, BatchLimit, OutOfMemory, is_out_of_memory
from models.engine import Engine, Prompt, Sequence, run_all
from models.engine.engine import STEPS_LATE
from models.types import ModelInput
from tests.models.test_engine import SPOILT, Toy, company, sequence
from tests.models.test_guidance import Painter, pictures

CPU = torch.device("cpu")


class Tight(Painter):
    """The toy, guided or not, with room for so many prompts, tokens, rows and scores."""

    def __init__(self, **room: int) -> None:
        super().__init__()
        self.room = room
        self.num_refused = 0

    def prompt(self, inputs: Ordered[ModelInput]) -> list[Prompt]:
        self._need("prompts", len(inputs))
        return super().prompt(inputs)

    def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
        B, T = embeddings.shape[:2]
        self._need("chunk", T)
        if cache_view.mask is None:
            self._need("prefill", B * T)
            self._need("length", T)
        else:
            self._need("rows", B)
        hidden = super().decode(embeddings, cache_view)
        # What comes too late has written to the cache already.
        self._need("late_rows", B)
        return hidden

    def logits(self, hidden: Tensor, choices: range | None = None) -> Tensor:
        self._need("scores", len(hidden))
        return super().logits(hidden, choices)

    def _need(self, what: str, amount: int) -> None:
        if amount > self.room.get(what, amount):
            self.num_refused += 1
            raise torch.OutOfMemoryError(f"tried to have {amount} {what}")


def answered(model: Toy, sequences: list[Sequence], slots: int = 8) -> tuple[Engine, list[tuple[int, ...]]]:
    engine = Engine(model, slots=slots, max_length=64)
    run_all(engine, sequences)
    return engine, ids_of(sequences)


def ids_of(sequences: list[Sequence]) -> list[tuple[int, ...]]:
    return [one.completion.token_ids if one.completion else () for one in sequences]


@pytest.mark.parametrize(
    "room",
    [
        {"prompts": 2},
        {"prefill": 16},
        {"prefill": 40},
        {"rows": 3},
        {"rows": 1},
        {"late_rows": 2},
        {"scores": 1},
        {"scores": 2},
        {"prompts": 3, "prefill": 32, "rows": 2, "scores": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "wishes", [lambda: company(1.0), lambda: pictures(temperature=1.0, top_k=5)], ids=["text", "guided"]
)
@pytest.mark.parametrize("late", [0, 2])
def test_less_room_changes_no_answer(
    wishes: Callable[[], list[Sequence]], room: dict[str, int], late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STEPS_LATE, "cpu", late)
    if wishes()[0].is_guided:
        # Two branches, and one row for the head.
        room = {what: amount if what == "scores" else max(2, amount) for what, amount in room.items()}
        room |= {"prefill": 32} if "prefill" in room else {}
    _, expected = answered(Painter(), wishes())
    tight = Tight(**room)
    engine, found = answered(tight, wishes())
    assert found == expected and () not in found
    assert tight.num_refused == engine.num_out_of_memory > 0


def test_a_row_that_can_never_fit_is_tried_alone_and_then_fails_alone() -> None:
    large = sequence([1] * 40, tokens=4)
    _, expected = answered(Toy(), company(0.0))
    tight, others = Tight(length=32), company(0.0)
    engine, found = answered(tight, [*others[:3], large, *others[3:]])
    assert ids_of(others) == expected and () not in expected
    assert isinstance(large.error, OutOfMemory) and large.completion is None
    assert str(large.error) == "the cpu has too little memory for a prompt of 40 tokens and 0 tiles, even alone"
    assert engine.num_out_of_memory == 2 and found.count(()) == 1


def test_a_prompt_that_is_too_long_even_alone_goes_through_in_smaller_chunks() -> None:
    def long() -> Sequence:
        return sequence([number % 20 for number in range(200)], tokens=5)

    def run(model: Toy, rows: list[Sequence]) -> Engine:
        engine = Engine(model, slots=4, max_length=256)
        run_all(engine, rows)
        return engine

    run(Toy(), expected := [long(), *company(0.0)])
    tight = Tight(chunk=110)
    engine = run(tight, rows := [long(), *company(0.0)])
    assert ids_of(rows) == ids_of(expected) and () not in ids_of(rows)
    # Beside the others once, alone once in one piece; halves of that fit.
    assert (tight.num_refused, engine.num_out_of_memory) == (2, 1)


def test_a_row_that_fits_alone_waits_until_the_others_have_ended() -> None:
    class Crowded(Tight):
        engine: Engine

        def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
            if embeddings.shape[1] > 16 and self.engine.num_running > 0:
                self.num_refused += 1
                raise MemoryError("the others take too much")
            return super().decode(embeddings, cache_view)

    _, expected = answered(Toy(), [sequence([1] * 40), *company(0.0)])
    crowded, large, others = Crowded(), sequence([1] * 40), company(0.0)
    engine = crowded.engine = Engine(crowded, slots=3, max_length=64)
    for one in others[:2]:
        engine.submit(one)
    engine.step()
    for one in [large, *others[2:]]:
        engine.submit(one)
    order: list[Sequence] = []
    while not engine.is_idle:
        order += engine.step()
        assert large not in order or large.error is None
    assert ids_of([large, *others]) == expected
    assert crowded.num_refused == engine.num_out_of_memory == 1
    assert order[:3] == [*others[:2], large]


def test_a_guided_row_whose_negative_prompt_finds_no_room_costs_neither_lane_nor_neighbour() -> None:
    def wishes() -> list[Sequence]:
        return [*pictures(), *pictures()]

    long_negative = wishes()
    few = long_negative[0].model_input
    object.__setattr__(few, "negative", few.token_ids.repeat(12))
    tight = Tight(prefill=32)
    engine, _ = answered(tight, long_negative, slots=5)
    _, expected = answered(Painter(), wishes(), slots=5)
    assert isinstance(long_negative[0].error, OutOfMemory)
    assert ids_of(long_negative[1:]) == expected[1:]
    assert engine.num_running == 0 and engine.num_out_of_memory > 0


def test_what_a_broken_prefill_left_spoils_nobody() -> None:
    tight = Tight(late_rows=8)
    spoilt = [sequence([SPOILT] * 30, tokens=20) for _ in range(9)]
    fine = company(0.0)
    answered(tight, [*spoilt, *fine], slots=9)
    assert tight.num_refused > 0 and all(isinstance(one.error, ArithmeticError) for one in spoilt)
    assert ids_of(fine) == answered(Toy(), company(0.0))[1]


def test_what_is_no_shortage_ends_the_engine() -> None:
    class Broken(Toy):
        def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        answered(Broken(), company(0.0))


def test_the_log_tells_of_few_of_many_shortages(caplog: pytest.LogCaptureFixture) -> None:
    tight = Tight(prefill=16, rows=1)
    with caplog.at_level(logging.WARNING):
        engine, _ = answered(tight, [*company(0.0), *company(0.0), *company(0.0)])
    assert engine.num_out_of_memory > 2 * len(caplog.records) and "no memory to prefill" in caplog.text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("can't allocate memory"), False),
    ],
    ids=repr,
)
def test_a_shortage_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_what_torch_says_of_a_full_cpu_is_a_shortage() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)


def test_a_limit_is_halved_when_memory_runs_out_and_grows_again_after_a_while() -> None:
    sizes: list[int] = []
    room = 4

    def work(some: Ordered[int]) -> int:
        sizes.append(len(some))
        if len(some) > room:
            raise MemoryError
        return sum(some)

    limit = BatchLimit("try", 8, CPU)
    assert limit.run_in_batches(work, range(8)) == [(range(4), 6), (range(4, 8), 22)]
    assert limit.num_out_of_memory == 1
    sizes.clear()
    for _ in range(CALLS_BEFORE_GROWTH):
        limit.run_in_batches(work, range(8))
    assert set(sizes) == {4} and limit.num_out_of_memory == 1
    room = 8
    assert limit.run_in_batches(work, range(8)) == [(range(8), 28)]


def test_a_limit_counts_the_cost_of_each_item_and_gives_none_for_what_never_fits() -> None:
    def work(some: Ordered[int]) -> Ordered[int]:
        if 3 in some:
            raise MemoryError
        return some

    assert BatchLimit("try", 8, CPU).run_in_batches(work, [1, 2, 3, 4], cost=3) == [
        ([1, 2], [1, 2]),
        ([3], None),
        ([4], [4]),
    ]
