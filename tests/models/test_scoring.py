"""Choices scored behind a prompt: as a plain loop has it, alone or in company, for the price of one prompt."""

import math
from collections.abc import Sequence as Ordered

import numpy as np
import pytest
import torch
from torch import Tensor

from models.cache.slots import Cache, CacheView, prefill_cache_view
from models.capacity.out_of_memory import OutOfMemory
from models.engine import Engine, Sequence, run_all, scoring
from models.engine import engine as engine_module
from models.token_tree import build_token_tree, tree_attention
from models.types import Completion, ModelInput, PromptTooLong, Sampling
from tests.models.test_engine import SPOILT, Toy, sequence
from tests.models.test_engine_memory import Tight

Choices = Ordered[Ordered[int]]

PROMPTS: list[tuple[list[int], Choices]] = [
    ([3, 1, 4], [[5], [6], [7], [8]]),  # letters
    ([2, 7, 1, 8], [[9, 3], [4], [9, 3, 5, 1], [9, 3]]),  # of unlike lengths, two of them alike
    ([1], [[30, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]]),  # one that is longer than a block
    ([5, 9, 2, 6, 5, 3, 5], [[1, 2, 3], [3, 2, 1], [2]]),
    (list(range(30)), [[1, 2], [2, 1]]),
    ([6, 6], [[5], [6]]),
]


@pytest.fixture
def toy() -> Toy:
    return Toy()


def choosing(prompt: Ordered[int], choices: Choices, tokens: int = 8) -> Sequence:
    given = tuple(np.array(ids, np.int32) for ids in choices)
    return Sequence("", ModelInput("", np.array(prompt, np.int32), choices=given), Sampling(max_new_tokens=tokens))


def company() -> list[Sequence]:
    return [choosing(prompt, choices) for prompt, choices in PROMPTS]


def assert_same(found: Ordered[Completion | None], expected: Ordered[Completion | None]) -> None:
    """Check that answers are equal; the toy's products round by their company (not so the families': test_contract)."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one is not None and other is not None and one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)


def scored(toy: Toy, sequences: list[Sequence], slots: int, max_length: int = 64) -> list[Completion]:
    run_all(Engine(toy, slots=slots, max_length=max_length), sequences)
    assert [one.error for one in sequences] == [None] * len(sequences)
    return [one.completion for one in sequences if one.completion is not None]


@torch.inference_mode()
def plainly(toy: Toy, prompt: Ordered[int], choice: Ordered[int]) -> list[float]:
    """Return the log-probability of each token of a choice from one plain forward over the whole text."""
    ids = [*prompt, *choice]
    cache = Cache(toy.cache_shape, 1, len(ids))
    cache_view = prefill_cache_view(cache, slice(0, 1), range(len(ids)), toy.device)
    scores = toy.logits(toy.decode(toy.embed(torch.tensor([ids])), cache_view)[0]).log_softmax(-1)
    return [scores[len(prompt) - 1 + i, token].item() for i, token in enumerate(choice)]


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_choices_have_the_log_probabilities_of_a_plain_forward(toy: Toy, slots: int) -> None:
    for (prompt, choices), found in zip(PROMPTS, scored(toy, company(), slots), strict=True):
        expected = [plainly(toy, prompt, choice) for choice in choices]
        assert found.choice_logprobs == pytest.approx([math.fsum(one) for one in expected], abs=1e-4)
        best = int(np.argmax([math.fsum(one) for one in expected]))
        assert found.token_ids == tuple(choices[best])
        assert found.logprobs == pytest.approx(expected[best], abs=1e-4)
        assert found.finish_reason == "stop"


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_company_changes_no_score(toy: Toy, slots: int) -> None:
    alone = [scored(toy, [one], slots=1)[0] for one in company()]
    assert_same(scored(toy, company(), slots), alone)
    assert_same(scored(toy, company()[::-1], slots)[::-1], alone)


def test_those_that_answer_and_those_that_choose_share_the_slots(toy: Toy) -> None:
    def answering() -> list[Sequence]:
        return [sequence(prompt, tokens=3 + i) for i, (prompt, _) in enumerate(PROMPTS)]

    alone = [scored(toy, [one], slots=1)[0] for one in (*answering(), *company())]
    mixed = [one for pair in zip(answering(), company(), strict=True) for one in pair]
    together = scored(toy, mixed, slots=4)
    assert_same(together[::2] + together[1::2], alone)


def test_of_equally_likely_choices_the_first_is_the_answer(toy: Toy) -> None:
    [found] = scored(toy, [choosing([2, 7], [[9, 3], [9, 3]])], slots=1)
    assert len(set(found.choice_logprobs)) == 1 and found.token_ids == (9, 3)
    one = choosing([1], [[4], [5]])
    one.choose([[-1.0], [-1.0]])
    assert one.completion is not None and one.completion.token_ids == (4,)


def test_choices_that_begin_alike_share_their_first_tokens() -> None:
    tree = build_token_tree([[5, 6, 7], [5, 6, 8, 9], [5], [1, 6, 7], [5, 6, 7]])
    assert tree.token_ids == (5, 6, 8, 1, 6)
    assert tree.parents == (-1, 0, 1, -1, 3)
    assert tree.ends == ((-1, 0, 1), (-1, 0, 1, 2), (-1,), (-1, 3, 4), (-1, 0, 1))


def test_a_token_sees_those_that_it_follows_and_no_other_branch() -> None:
    sees, depths = tree_attention((-1, 0, 1, -1, 3), num_tokens=7)
    assert [np.flatnonzero(row).tolist() for row in sees] == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4], [3, 4]]
    assert depths.tolist() == [0, 1, 2, 0, 1, 1, 1]


class Counting(Toy):
    """The toy, which notes the shapes that go through it."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.scored: list[int] = []

    def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
        self.shapes.append(tuple(embeddings.shape[:2]))
        return super().decode(embeddings, cache_view)

    def logits(self, hidden: Tensor, choices: range | None = None) -> Tensor:
        self.scored.append(len(hidden))
        return super().logits(hidden, choices)


def test_letters_cost_one_pass_of_their_prompt_and_nothing_else() -> None:
    toy = Counting()
    engine = Engine(toy, slots=8, max_length=64)
    run_all(engine, [choosing([n, 1, 4], [[5], [6], [7], [8]]) for n in range(4)])
    assert (toy.shapes, engine.num_prefilled) == ([(4, 16)], 12)


def test_longer_choices_of_all_prompts_go_through_together_once() -> None:
    toy = Counting()
    longer = [choosing([1] * n, [[5, 6, 7], [8, 9], [3]]) for n in (3, 20, 5)]
    run_all(Engine(toy, slots=8, max_length=64), [choosing([4], [[1], [2]]), *longer])
    # Prompts of a few tokens with letters and with more, a longer prompt; then what all three need of their choices.
    assert toy.shapes == [(1, 16), (2, 16), (1, 32), (3, 16)]


def test_a_choice_of_many_tokens_is_scored_a_piece_at_a_time(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(scoring, "SCORED_STATES", 7)
    prompt, choices = [1, 2], [[i % 30 for i in range(20)], [3, 4]]
    [found] = scored(counting, [choosing(prompt, choices)], slots=1)
    assert counting.scored == [7, 7, 7]
    assert found.choice_logprobs == pytest.approx([math.fsum(plainly(toy, prompt, one)) for one in choices], abs=1e-4)


@pytest.mark.parametrize("length", [7, 8, 9, 30])
def test_choices_behind_a_prompt_in_chunks_are_scored_as_behind_one_piece(
    toy: Toy, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, choices = [(7 * i) % 30 for i in range(length)], [[1, 2, 3], [4]]
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 8)
    [found] = scored(toy, [choosing(prompt, choices)], slots=2)
    assert found.choice_logprobs == pytest.approx([math.fsum(plainly(toy, prompt, one)) for one in choices], abs=1e-4)


def test_how_many_tokens_an_answer_may_have_says_nothing_about_choices(toy: Toy) -> None:
    long = choosing([1, 2], [[3, 4, 5, 6]], tokens=1)
    assert scored(toy, [long], slots=1)[0].token_ids == (3, 4, 5, 6)
    assert scored(toy, [choosing(range(12), [[1], [2]], tokens=500)], slots=1, max_length=16)


def test_choices_fit_that_lie_behind_their_prompt_all_but_their_last_tokens(toy: Toy) -> None:
    choices = [[1, 2, 3], [4, 5], [6]]  # three tokens are fed, and the scores after them are one more
    assert scored(toy, [choosing(range(12), choices)], slots=1, max_length=16)
    late = choosing(range(13), choices)
    good = choosing([1], choices)
    run_all(Engine(toy, slots=2, max_length=16), [late, good])
    assert isinstance(late.error, PromptTooLong) and good.error is None
    assert str(late.error) == "the prompt has 13 tokens and its choices 4: 17 together, but max_length is 16"


@pytest.mark.parametrize(
    "spoilt",
    [choosing([1, SPOILT, 2], [[3], [4]]), choosing([1, 2], [[3], [SPOILT, 4]]), choosing([SPOILT], [[3, 4]])],
    ids=["letters", "a choice", "prompt and choices"],
)
def test_scores_that_are_not_numbers_cost_one_row_and_nobody_after_it(toy: Toy, spoilt: Sequence) -> None:
    expected = scored(toy, company(), slots=1)
    batching = Engine(toy, slots=2, max_length=64)
    others = company()
    run_all(batching, [others[0], spoilt, *others[1:]])
    assert str(spoilt.error).startswith("the scores of the choices are not numbers") and spoilt.completion is None
    assert_same([one.completion for one in others], expected)


def test_a_slot_used_before_leaves_nothing_behind_and_its_choices_leave_nothing(toy: Toy) -> None:
    batching = Engine(toy, slots=1, max_length=64)
    run_all(batching, [sequence(range(30), tokens=30)])
    choosers, answerer = company(), sequence([5, 6], tokens=20)
    run_all(batching, [*choosers, answerer])
    assert_same([one.completion for one in choosers], scored(toy, company(), slots=4))
    [expected] = scored(toy, [sequence([5, 6], tokens=20)], slots=1)
    assert_same([answerer.completion], [expected])


@pytest.mark.parametrize("room", [{"rows": 1}, {"late_rows": 1}, {"scores": 8}, {"prefill": 16}], ids=str)
def test_less_room_changes_no_score(room: dict[str, int]) -> None:
    rows = [row for row in PROMPTS if len(row[0]) <= 16 and len(row[1][0]) <= 11]  # what fits by itself
    expected = [scored(Toy(), [choosing(*row)], slots=1)[0] for row in rows]
    tight = Tight(**room)
    assert_same(scored(tight, [choosing(*row) for row in rows], slots=8), expected)
    assert tight.num_refused > 0


def test_choices_that_can_never_fit_fail_alone() -> None:
    tight, large = Tight(scores=6), choosing([1], [[2, 3, 4, 5, 6, 7, 8]])
    others = [choosing([n], [[5], [6]]) for n in range(6)]
    expected = scored(Toy(), [choosing([n], [[5], [6]]) for n in range(6)], slots=1)
    run_all(Engine(tight, slots=8, max_length=64), [*others[:3], large, *others[3:]])
    assert isinstance(large.error, OutOfMemory)
    assert_same([one.completion for one in others], expected)


def test_random_prompts_and_choices_agree_with_a_plain_forward(toy: Toy) -> None:
    random = np.random.default_rng(5)
    rows = [
        (
            random.integers(0, SPOILT, random.integers(1, 40)).tolist(),
            [random.integers(0, SPOILT, random.integers(1, 9)).tolist() for _ in range(random.integers(1, 6))],
        )
        for _ in range(40)
    ]
    found = scored(toy, [choosing(prompt, choices) for prompt, choices in rows], slots=7, max_length=128)
    for (prompt, choices), one in zip(rows, found, strict=True):
        expected = [math.fsum(plainly(toy, prompt, choice)) for choice in choices]
        assert one.choice_logprobs == pytest.approx(expected, abs=1e-4)
