"""What the engine promises a GPU, held on a CPU: few launches and waits a step, alike for any company and length.

The product's own branches for GPUs run on tiny checkpoints of random weights (tests/gpu/make_believe.py). `BUDGETS` is
what a step costs today: its numbers only ever go down, and beside each stands where it is to go.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from models import Family, Sampling, layers
from models.engine import Engine, Sequence, engine, run_all
from models.llama import FamilyModel, LanguageModel
from models.types import ModelInput
from tests.gpu.make_believe import make_believe
from tests.gpu.questions import DRAWING, GREEDY, asked, decoding, tiny_model
from tests.gpu.seen import LAUNCH, Log, watched


@dataclass(frozen=True)
class Budget:
    """The most that a decode step costs.

    Attributes:
        layer: Launches of a layer that attends to its own sequence. Goal: 14.
        cross_layer: Launches of a layer that attends to pictures, with four of them. Goal: 14.
        rest: Launches of all else: embeddings, rotation, head, sampler.
    """

    layer: float
    rest: float
    cross_layer: float = 0


BUDGETS: dict[Family, Budget] = {
    "aria": Budget(layer=14, rest=40),
    "mllama": Budget(layer=11, rest=40, cross_layer=18),
    "emu3": Budget(layer=11, rest=40),
}
# The one wait of a step: for tokens that an earlier one has chosen.
WAITS = {"event": 1}


SAMPLINGS = (
    Sampling(max_new_tokens=9),
    Sampling(max_new_tokens=6, temperature=1.0, seed=3),
    Sampling(max_new_tokens=9, temperature=1.0, top_k=8),
    Sampling(max_new_tokens=7, temperature=1.0, top_k=50, top_p=0.8, seed=1),
)


kept = cache(tiny_model)  # tests ask models, and change none


@cache
def loaded(family: Family, num_layers: int, cross: tuple[int, ...], dtype: str) -> FamilyModel:
    """Return a tiny model on a GPU."""
    text: dict[str, Any] = {"cross_attention_layers": list(cross)} if family == "mllama" else {}
    return tiny_model(family, "cuda", dtype, num_hidden_layers=num_layers, **text)


@cache
def step(
    family: Family,
    lanes: int = 4,
    *,
    sampling: Sampling = GREEDY,
    length: int = 8,
    layers: int = 2,
    cross: tuple[int, ...] = (1,),
    dtype: str = "bfloat16",
    capability: tuple[int, int] = (9, 0),
) -> Log:
    """Return what a GPU sees of a decode step, some steps after the prompts."""
    with make_believe(capability):
        engine = decoding(loaded(family, layers, cross, dtype), family, lanes, sampling, length)
        with watched() as log:
            engine.step()
    return log


@pytest.mark.parametrize(
    ("family", "sampling"),
    [("aria", GREEDY), ("mllama", GREEDY), *(("emu3", sampling) for sampling in (*SAMPLINGS, DRAWING))],
)
def test_a_step_waits_once_and_copies_nothing(family: Family, sampling: Sampling) -> None:
    waits = step(family, sampling=sampling).waits()
    assert Counter(line.split()[1] for line in waits.elements()) == WAITS, waits


@pytest.mark.parametrize(("dtype", "capability"), [("bfloat16", (8, 0)), ("float16", (9, 0))])
def test_experts_make_nobody_wait_on_any_gpu(dtype: str, capability: tuple[int, int]) -> None:
    waits = step("aria", dtype=dtype, capability=capability).waits()
    assert Counter(line.split()[1] for line in waits.elements()) == WAITS, waits


def test_layers_make_nobody_wait_for_a_prompt(family: Family) -> None:
    def waits(num_layers: int) -> Counter[str]:
        with make_believe():
            engine = Engine(loaded(family, num_layers, (1,), "bfloat16"), slots=4, max_length=64)
            for sequence in asked(engine._model, family, 4, GREEDY):
                engine.submit(sequence)
            with watched() as log:
                engine.step()
        return log.waits()

    assert waits(4) == waits(2)


def test_a_layer_and_the_rest_launch_no_more_than_their_budget(family: Family) -> None:
    budget = BUDGETS[family]
    few, many = (step(family, layers=layers) for layers in (2, 4))
    layer = (many.num_launches - few.num_launches) / 2
    assert layer <= budget.layer, many.launches()
    cross = 0.0
    if family == "mllama":
        cross = step(family, layers=5, cross=(1, 3)).num_launches - many.num_launches
        assert cross <= budget.cross_layer
    own = 2 - (family == "mllama")
    assert few.num_launches - own * layer - cross <= budget.rest, few.launches()


def test_a_step_launches_as_much_for_many_sequences_as_for_few(family: Family) -> None:
    few, many = (step(family, lanes) for lanes in (4, 8))
    assert many.launches() == few.launches()


def test_steps_at_unlike_lengths_are_one_program(family: Family) -> None:
    logs = [step(family, length=length) for length in (8, 70, 140)]
    assert len({tuple(one for one in log.seen if one.kind == LAUNCH) for log in logs}) == 1


def answers(
    family: Family, device: str, samplings: tuple[Sampling, ...], slots: int, dtype: str = "float32"
) -> list[tuple[int, ...]]:
    """Return the tokens of answers, one with each sampling."""
    model = kept(family, device, dtype)
    sequences = [asked(model, family, len(samplings), sampling)[number] for number, sampling in enumerate(samplings)]
    run_all(Engine(model, slots=slots, max_length=128), sequences)
    assert [one.error for one in sequences if one.error] == []
    return [one.completion.token_ids for one in sequences if one.completion]


@pytest.mark.parametrize("slots", [3, 7])  # fewer than there are questions; more, so that recorded steps have idle ones
@pytest.mark.parametrize("samplings", [SAMPLINGS, (DRAWING,) * 2], ids=["text", "pictures"])
def test_the_branches_for_gpus_give_the_tokens_of_a_cpu(
    family: Family, samplings: tuple[Sampling, ...], slots: int
) -> None:
    if samplings[0] is DRAWING and family != "emu3":
        return  # only Emu3 draws
    here = answers(family, "cpu", samplings, slots)
    with make_believe():
        assert answers(family, "cuda", samplings, slots) == here


def test_guessing_ahead_gives_the_tokens_of_a_cpu_that_does_not_and_is_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "models.engine.graphed")
    here = answers("emu3", "cpu", (DRAWING,) * 5, 16)
    with make_believe():
        model = kept("emu3", "cuda", "float32")
        sequences = asked(model, "emu3", 5, DRAWING)
        run_all(Engine(model, slots=16, max_length=128, speculate=4), sequences)
    said = [line for line in caplog.messages if line.startswith("recorded")]
    assert said and all(line.endswith(" lanes, 4 tokens each") for line in said), caplog.messages
    assert [one.completion.token_ids for one in sequences if one.completion] == here


def test_steps_are_recorded_once_for_each_size_of_company(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "models.engine.graphed")
    answers_of = [replace(GREEDY, max_new_tokens=tokens) for tokens in (13, 9, 9, 5, 5, 5)]
    with make_believe():
        answers(family, "cuda", tuple(answers_of), 16, "bfloat16")
    said = [line for line in caplog.messages if line.startswith("recorded")]
    assert said == [f"recorded a decode step of {size} lanes, 1 tokens each" for size in (8, 4, 1)]


def test_a_model_whose_steps_wait_is_not_recorded_and_answers_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    here = answers("emu3", "cpu", SAMPLINGS, 3)
    logits = LanguageModel.forward

    def waits(self: LanguageModel, *given: Any) -> Any:
        hidden = logits(self, *given)
        assert hidden.sum().item() != 0
        return hidden

    with make_believe(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "forward", waits)
        assert answers("emu3", "cuda", SAMPLINGS, 3) == here
    [said] = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert "not as a graph: operation not permitted when stream is capturing" in said


@pytest.mark.parametrize("has_flash", [True, False])
def test_a_long_prompt_is_answered_in_chunks_as_in_one_piece(has_flash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def tokens(chunk: int) -> list[Any]:
        monkeypatch.setattr(engine, "PREFILL_TOKENS", chunk)
        sequences = asked(model, "emu3", 3, Sampling(max_new_tokens=3), length=90)
        run_all(Engine(model, slots=3, max_length=128), sequences)
        return [one.completion and one.completion.token_ids for one in sequences]

    with make_believe(), watched() as log:
        monkeypatch.setattr(layers, "can_use_flash_attention", lambda params: has_flash)
        model = loaded("emu3", 2, (), "float32")
        assert tokens(32) == tokens(4096)
    kernels = {one.name for one in log.seen if one.kind == LAUNCH}
    assert ("_scaled_dot_product_flash_attention" in kernels) == has_flash


def test_choices_are_scored_alike(family: Family) -> None:
    def scores(device: str) -> list[Any]:
        model, random = kept(family, device, "float32"), np.random.default_rng(0)
        choices = tuple(random.integers(20, 100, length).astype(np.int32) for length in (1, 3, 20))
        prompts = [random.integers(20, 100, 9).astype(np.int32) for _ in range(3)]
        sequences = [Sequence("", ModelInput("", ids, choices=choices), Sampling()) for ids in prompts]
        run_all(Engine(model, slots=3, max_length=128), sequences)
        return [one.completion.choice_logprobs if one.completion else one.error for one in sequences]

    here = scores("cpu")
    with make_believe():
        for there, expected in zip(scores("cuda"), here, strict=True):
            assert there == pytest.approx(expected, abs=1e-4)
