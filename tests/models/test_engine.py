"""The engine, driven by a toy decoder: company changes no answer, slots stay full, one bad row costs one row."""

from collections.abc import Sequence as Ordered
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.cache.slots import Cache, CacheShape, CacheView, prefill_cache_view
from models.engine import Decoder, Engine, Prompt, Sequence, engine, run_all
from models.engine.lanes import Group, Lanes
from models.layers import RMSNorm, Rotation, rotary_frequencies
from models.types import Completion, ModelInput, PromptTooLong, Sampling

V, D, C = 40, 16, 8
REFUSED = 39  # a prompt with this id cannot be brought onto the device
SPOILT = 38  # a prompt with this id overflows to NaN


class Toy(nn.Module):
    """A decoder of two layers with attention and nothing else: enough to notice a wrong cache."""

    device = torch.device("cpu")
    max_position_embeddings = 4096

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def matrix(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).mul(shape[-1] ** -0.5)

        self.table = matrix(V, D)
        self.head = matrix(D, V) * 12
        self.nan = torch.zeros(V, 1)
        self.nan[SPOILT] = torch.nan
        self.qkv = [matrix(D, 4 * C) for _ in range(2)]  # two query heads, one key head
        self.out = [matrix(2 * C, D) * 2 for _ in range(2)]
        self.norm = RMSNorm(D, 1e-6)
        self.norm.weight.data.fill_(1.0)
        self.calls: list[int] = []

    @property
    def cache_shape(self) -> CacheShape:
        return CacheShape((torch.device("cpu"),) * 2, num_heads=1, head_dim=C, dtype=torch.float32)

    def prompt(self, inputs: Ordered[ModelInput]) -> list[Prompt]:
        self.calls.append(len(inputs))
        if any(REFUSED in model_input.token_ids for model_input in inputs):
            raise RuntimeError("this image cannot be encoded")
        return [Prompt(self.embed(torch.from_numpy(i.token_ids).long())) for i in inputs]

    def embed(self, token_ids: Tensor) -> Tensor:
        return self.table[token_ids] + self.nan[token_ids]

    def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
        x = embeddings
        rotate = Rotation(cache_view.positions, rotary_frequencies(C, 100.0), x.dtype)
        for layer in range(2):
            q, k, v = (self.norm(x) @ self.qkv[layer]).unflatten(-1, (-1, C)).transpose(1, 2).split((2, 1, 1), dim=1)
            # The past weighs more than the token itself, so that a place forgotten or seen too much shows.
            x = 0.2 * x + cache_view.attend(layer, rotate(q), rotate(k), v) @ self.out[layer]
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor, choices: range | None = None) -> Tensor:
        head = self.head if choices is None else self.head[:, choices.start : choices.stop]
        return (hidden @ head).float()


@pytest.fixture
def toy() -> Toy:
    return Toy()


def sequence(ids: Ordered[int], tokens: int = 8, key: str = "", **options: object) -> Sequence:
    model_input = ModelInput("", np.array(ids, np.int32))
    sampling = options.pop("sampling", Sampling(max_new_tokens=tokens))
    assert isinstance(sampling, Sampling)
    return Sequence(key, model_input, sampling, **options)


def answers(toy: Toy, sequences: Ordered[Sequence], slots: int, max_length: int = 64) -> list[Completion | None]:
    run_all(Engine(toy, slots=slots, max_length=max_length), sequences)
    return [one.completion for one in sequences]


def ids_of(completions: Ordered[Completion | None]) -> list[tuple[int, ...]]:
    return [one.token_ids for one in completions if one is not None]


def uncached(toy: Toy, prompt: Ordered[int], tokens: int) -> list[int]:
    """Answer by running everything anew for each token, without cache or padding."""
    ids = list(prompt)
    for _ in range(tokens):
        whole = Engine(toy, slots=1, max_length=len(ids) + 1)
        one = sequence(ids, tokens=1)
        run_all(whole, [one])
        ids += one.token_ids
    return ids[len(prompt) :]


PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5], [8, 9], [7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4], [2, 7], [1]]


def company(temperature: float) -> list[Sequence]:
    return [
        sequence(prompt, sampling=Sampling(max_new_tokens=3 + 2 * i, temperature=temperature, seed=i))
        for i, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("slots", [2, 5, 16])
def test_company_does_not_change_an_answer(toy: Toy, slots: int, temperature: float) -> None:
    together = ids_of(answers(toy, company(temperature), slots))
    alone = [ids_of(answers(toy, [one], slots=1))[0] for one in company(temperature)]
    assert together == alone
    assert [len(one) for one in together] == [3 + 2 * i for i in range(len(PROMPTS))]
    assert len(set(together)) > 3


def mixed() -> list[Sequence]:
    """Return questions that choose in every way: likeliest, drawn, and filtered by either rule or both."""
    ways = [
        Sampling(),
        Sampling(temperature=1.3),
        Sampling(temperature=1.0, top_k=5),
        Sampling(temperature=0.8, top_p=0.7),
        Sampling(temperature=1.1, top_k=9, top_p=0.9),
    ]
    return [
        sequence(prompt, sampling=replace(ways[i % len(ways)], max_new_tokens=3 + 2 * i, seed=i))
        for i, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("slots", [2, 5, 16])
def test_each_chooses_in_its_own_way_beside_others(toy: Toy, slots: int) -> None:
    alone = [ids_of(answers(toy, [one], slots=1))[0] for one in mixed()]
    assert ids_of(answers(toy, mixed(), slots)) == alone
    assert alone[0] == ids_of(answers(toy, company(0.0), slots=1))[0]  # the likeliest


@pytest.mark.parametrize("late", [1, 2, 5])
@pytest.mark.parametrize("max_length", [31, 64])
def test_reading_what_was_chosen_some_steps_late_changes_no_answer(
    toy: Toy, late: int, max_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wishes() -> list[Sequence]:
        stopped = [
            sequence(prompt, stop_ids=frozenset(range(0, V, 7)), sampling=Sampling(20, temperature=1.0, seed=i))
            for i, prompt in enumerate(PROMPTS)
        ]
        return [*mixed(), *stopped, sequence([SPOILT, 1]), sequence([1] * 12, tokens=31 - 12)]

    expected, at_once = answers(toy, wishes(), 3, max_length), wishes()
    assert {one.finish_reason for one in expected if one} == {"stop", "length"}
    monkeypatch.setitem(engine.STEPS_LATE, "cpu", late)
    found = answers(toy, at_once, 3, max_length)
    assert [one and (one.token_ids, one.finish_reason) for one in found] == [
        one and (one.token_ids, one.finish_reason) for one in expected
    ]
    assert [str(one.error) for one in at_once if one.error] == [
        "the scores after 0 tokens are not numbers: a wider dtype may hold them"
    ]


def test_order_of_arrival_does_not_change_an_answer(toy: Toy) -> None:
    forwards = ids_of(answers(toy, company(1.0), slots=3))
    backwards = company(1.0)[::-1]
    assert ids_of(answers(toy, backwards, slots=3))[::-1] == forwards


def test_the_cache_gives_what_running_everything_anew_gives(toy: Toy) -> None:
    for prompt in PROMPTS:
        assert list(ids_of(answers(toy, [sequence(prompt)], slots=2))[0]) == uncached(toy, prompt, tokens=8)


def test_slots_stay_full_while_anything_waits(toy: Toy) -> None:
    batching = Engine(toy, slots=3, max_length=64)
    for one in company(0.0):
        batching.submit(one)
    running = []
    while not batching.is_idle:
        batching.step()
        running.append((batching.num_running, batching.num_waiting))
    # A step ends with those still unanswered; a slot freed in it is filled at the start of the next.
    assert all(count >= 1 for count, waiting in running if waiting)
    assert sum(toy.calls) == len(PROMPTS)
    # 7 answers of 3, 5, … 15 tokens on 3 slots: each step beyond the admissions gives one token to each slot.
    assert len(running) <= 15 + 9 + 3


def test_a_sequence_is_admitted_while_others_run(toy: Toy) -> None:
    batching = Engine(toy, slots=2, max_length=64)
    first, second = sequence([1, 2, 3], tokens=20), sequence([4, 5], tokens=3)
    batching.submit(first)
    for _ in range(5):
        assert batching.step() == []
    batching.submit(second)
    ended: list[Sequence] = []
    while not ended:
        ended = batching.step()
    assert ended == [second]
    assert first.completion is None
    assert ids_of([second.completion]) == ids_of(answers(toy, [sequence([4, 5], tokens=3)], slots=1))


def test_an_answer_ends_with_its_stop_id_and_keeps_it(toy: Toy) -> None:
    [whole] = ids_of(answers(toy, [sequence([3, 1, 4], tokens=12)], slots=1))
    stop = whole[5]
    [completion] = answers(toy, [sequence([3, 1, 4], tokens=12, stop_ids=frozenset({stop}))], slots=1)
    assert completion is not None
    assert completion.token_ids == whole[: whole.index(stop) + 1]
    assert completion.finish_reason == "stop"


def test_an_answer_ends_where_its_stop_test_says_so(toy: Toy) -> None:
    one = sequence([3, 1, 4], tokens=12, stop_condition=lambda ids: len(ids) == 4)
    [completion] = answers(toy, [one], slots=1)
    assert completion is not None and (len(completion.token_ids), completion.finish_reason) == (4, "stop")


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_an_answer_ends_at_its_limit(toy: Toy, tokens: int) -> None:
    [completion] = answers(toy, [sequence([3, 1, 4], tokens=tokens)], slots=1)
    assert completion is not None and (len(completion.token_ids), completion.finish_reason) == (tokens, "length")


def test_a_prompt_that_is_too_long_ends_alone_and_says_how_long_it_is(toy: Toy) -> None:
    good, bad = sequence([1, 2], tokens=4), sequence(range(30), tokens=4)
    run_all(Engine(toy, slots=2, max_length=16), [bad, good])
    assert isinstance(bad.error, PromptTooLong)
    assert str(bad.error) == ("the prompt has 30 tokens and the answer up to 4: 34 together, but max_length is 16")
    assert good.error is None and good.completion is not None


def test_a_prompt_that_fits_exactly_is_answered(toy: Toy) -> None:
    [completion] = answers(toy, [sequence(range(12), tokens=4)], slots=1, max_length=16)
    assert completion is not None and len(completion.token_ids) == 4


def test_an_input_that_cannot_be_encoded_costs_one_row(toy: Toy) -> None:
    sequences = company(0.0)
    bad = sequence([1, REFUSED], key="bad")
    run_all(Engine(toy, slots=4, max_length=64), [*sequences[:2], bad, *sequences[2:]])
    assert str(bad.error) == "this image cannot be encoded" and bad.completion is None
    assert ids_of([one.completion for one in sequences]) == ids_of(answers(toy, company(0.0), slots=4))


def test_scores_that_are_not_numbers_cost_one_row_and_nobody_after_it(toy: Toy) -> None:
    expected = ids_of(answers(toy, company(0.0), slots=2))
    batching = Engine(toy, slots=2, max_length=64)
    spoilt = [sequence([1, 2, SPOILT, 3], tokens=20), sequence([SPOILT] * 20, tokens=20)]
    fine = company(0.0)
    run_all(batching, [spoilt[0], fine[0], spoilt[1], *fine[1:]])
    assert all(str(one.error).startswith("the scores after 0 tokens are not numbers") for one in spoilt)
    assert all(one.completion is None for one in spoilt)
    assert ids_of([one.completion for one in fine]) == expected


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 30])
def test_a_long_prompt_in_chunks_is_answered_as_in_one_piece(
    toy: Toy, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[(7 * i) % V for i in range(length)], [1, 2, 3]]
    prompts = [[id_ % SPOILT for id_ in prompt] for prompt in prompts]
    whole = answers(toy, [sequence(prompt) for prompt in prompts], slots=2)
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 8)
    chunked = answers(toy, [sequence(prompt) for prompt in prompts], slots=2)
    assert ids_of(chunked) == ids_of(whole)
    for one, other in zip(chunked, whole, strict=True):
        assert one is not None and other is not None and one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_slot_used_before_leaves_nothing_behind(toy: Toy) -> None:
    batching = Engine(toy, slots=1, max_length=64)
    run_all(batching, [sequence(range(30), tokens=30)])
    reused = sequence([5, 6], tokens=20)
    run_all(batching, [reused])
    assert ids_of([reused.completion]) == ids_of(answers(toy, [sequence([5, 6], tokens=20)], slots=1))


def test_log_probabilities_are_the_models_own_whatever_the_sampling(toy: Toy) -> None:
    odd = Sampling(max_new_tokens=6, temperature=0.7, top_k=3, top_p=0.8, seed=4)
    [completion] = answers(toy, [sequence([3, 1, 4], sampling=odd)], slots=1)
    assert completion is not None
    ids = [3, 1, 4]
    for token, logprob in zip(completion.token_ids, completion.logprobs, strict=True):
        [[scores]] = _scores(toy, ids)
        assert logprob == pytest.approx(scores.log_softmax(-1)[token].item(), abs=1e-5)
        ids.append(token)


def _scores(toy: Toy, ids: list[int]) -> Tensor:
    cache = Cache(toy.cache_shape, 1, len(ids))
    with torch.inference_mode():
        hidden = toy.decode(
            toy.embed(torch.tensor([ids])), prefill_cache_view(cache, slice(0, 1), range(len(ids)), toy.device)
        )
        return toy.logits(hidden[:, -1:])


@pytest.mark.parametrize(("slots", "max_length"), [(0, 16), (2, 1), (2, 5000)])
def test_an_engine_that_cannot_be_names_what_it_was_given(toy: Toy, slots: int, max_length: int) -> None:
    with pytest.raises(ValueError, match=f"slots is {slots} and max_length {max_length}; .* 4096"):
        Engine(toy, slots=slots, max_length=max_length)


def test_a_row_that_is_brought_home_says_how_many_tokens_its_answer_had_and_has(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[float]] = []
    answer = Lanes.answer

    def seen(self: Lanes, model: Decoder, group: Group) -> Tensor:
        found = answer(self, model, group)
        rows.extend(found.tolist())
        return found

    monkeypatch.setattr(Lanes, "answer", seen)
    one = sequence([3, 1, 4], tokens=3)
    answers(toy, [one], slots=2)
    assert [row[:4] for row in rows] == [[n, n + 1, 1, token] for n, token in enumerate(one.token_ids)]
