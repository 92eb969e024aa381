"""Chance comes from seed, place and token alone, follows the distribution, and is filtered as the reference does."""

import math

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from models.sampler import Draws, _draw_among_kept, _draw_masked, choose, gumbel, kept
from models.types import Sampling

CPU = torch.device("cpu")


def chosen(logits: torch.Tensor, samplings: list[Sampling], places: list[int]) -> tuple[list[int], list[float]]:
    """Return ids and log-probabilities of settings of one kind."""
    ids, logprobs = choose(logits, Draws.of(samplings, CPU), torch.tensor(places))
    return ids.tolist(), logprobs.tolist()


def filters(top_k: list[int], top_p: list[float]) -> Draws:
    return Draws.of([Sampling(temperature=1.0, top_k=k, top_p=p) for k, p in zip(top_k, top_p, strict=True)], CPU)


def draws(logits: list[float], number: int, **sampling: float) -> np.ndarray:
    """Draw `number` tokens for as many seeds and count them."""
    samplings = [Sampling(temperature=sampling.get("temperature", 1.0), seed=seed) for seed in range(number)]
    ids, _ = chosen(torch.tensor([logits]).expand(number, -1), samplings, [0] * number)
    return np.bincount(ids, minlength=len(logits))


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    logits = [0.0, 1.0, -1.0, 2.5, 0.3, -3.0, 1.7, -0.4]
    number = 200_000
    expected = torch.tensor(logits).double().softmax(-1).numpy() * number
    # 7 degrees of freedom: above 24.3 once in a thousand.
    assert chi_square(draws(logits, number), expected) < 24.3


def test_temperature_softens_the_frequencies() -> None:
    logits = [0.0, 1.0, -1.0, 2.5]
    number = 50_000
    expected = (torch.tensor(logits).double() / 2).softmax(-1).numpy() * number
    assert chi_square(draws(logits, number, temperature=2.0), expected) < 16.3  # 3 degrees of freedom


def test_places_of_one_answer_draw_independently() -> None:
    noise = gumbel(torch.full((2000, 1), 7), torch.arange(2000)[:, None], torch.arange(4))
    first = noise.argmax(-1)
    pairs = np.bincount((first[:-1] * 4 + first[1:]).numpy(), minlength=16)
    assert chi_square(pairs, np.full(16, 1999 / 16)) < 37.7  # 15 degrees of freedom


def test_noise_is_never_infinite() -> None:
    # In float32 the noise of these tokens under these seeds rounds to infinity, and would win against any score.
    for seed, token in ((413, 99_913), (852, 50_494)):
        assert gumbel(torch.tensor(seed), torch.tensor(0), torch.arange(100_352)).isfinite().all()
        scores = torch.zeros(1, 100_352)
        scores[0, token] = -30.0
        assert chosen(scores, [Sampling(temperature=1.0, seed=seed)], [0])[0] != [token]


def test_a_seed_draws_alike_in_any_row() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 50)
    sampling = Sampling(temperature=1.0, seed=2**63 + 5)
    alone, _ = chosen(logits[1:2], [sampling], [4])
    others = [Sampling(temperature=0.5, seed=1), sampling, Sampling(temperature=2.0)]
    assert chosen(logits, others, [0, 4, 9])[0][1:2] == alone


def test_a_seed_draws_anew_at_every_place() -> None:
    logits, sampling = torch.zeros(1, 1000), Sampling(temperature=1.0, seed=3)
    drawn = [chosen(logits, [sampling], [place])[0][0] for place in range(20)]
    assert len(set(drawn)) > 15


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [
    (1.0, 0, 1.0), (0.7, 5, 1.0), (1.0, 0, 0.9), (1.3, 7, 0.6), (0.5, 1, 0.5), (2.0, 1000, 0.99), (1.0, 3, 0.01),
])  # fmt: skip
def test_filters_equal_the_references(temperature: float, top_k: int, top_p: float, ties: bool) -> None:
    logits = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    if ties:
        logits = (logits * 2).round()
    expected = logits
    if temperature != 1:
        expected = TemperatureLogitsWarper(temperature)(None, expected)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    softened, B = logits / temperature, len(logits)
    ours = softened.masked_fill(~kept(softened, filters([top_k] * B, [top_p] * B)), -torch.inf)
    if ties:  # which of equal scores stays is the sort's choice; how many stay is not
        ours, expected = ours.sort(-1).values, expected.sort(-1).values
    assert torch.equal(ours, expected)


def test_rows_are_filtered_each_by_its_own_settings() -> None:
    scores = torch.randn(3, 30)
    together = kept(scores, filters([4, 0, 2], [1.0, 0.5, 0.9]))
    assert together[0].sum() == 4
    for row, settings in enumerate([([4], [1.0]), ([0], [0.5]), ([2], [0.9])]):
        assert torch.equal(together[row : row + 1], kept(scores[row : row + 1], filters(*settings)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (300, 1.0), (0, 0.8), (30, 0.5)])
def test_what_is_drawn_is_the_greatest_of_all_scores_and_their_noise(top_k: int, top_p: float, ties: bool) -> None:
    logits = torch.randn(7, 1001, generator=torch.Generator().manual_seed(1)) * 2
    if ties:
        logits = logits.round()
    for place in range(40):
        samplings = [Sampling(temperature=0.7, top_k=top_k, top_p=top_p, seed=seed) for seed in range(7)]
        scores = logits / 0.7
        scores = scores.masked_fill(~kept(scores, filters([top_k] * 7, [top_p] * 7)), -torch.inf)
        noise = gumbel(torch.arange(7)[:, None], torch.tensor(place), torch.arange(1001))
        assert chosen(logits, samplings, [place] * 7)[0] == (scores + noise).argmax(-1).tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.5), (3, 0.5)])
def test_a_row_of_no_numbers_says_so_and_spoils_no_other(bad: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(3, 20)
    sampling = [Sampling(temperature=1.0, top_k=top_k, top_p=top_p, seed=seed) for seed in range(3)]
    expected_ids, expected_logprobs = chosen(logits, sampling, [0, 0, 0])
    logits[2] = bad
    ids, logprobs = chosen(logits, sampling, [0, 0, 0])
    assert ids[:2] == expected_ids[:2]
    assert logprobs[:2] == expected_logprobs[:2]
    assert math.isnan(logprobs[2])


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (0, 0.8), (30, 0.5), (2000, 0.9)])
def test_noise_for_what_is_kept_alone_draws_what_noise_for_everything_draws(top_k: int, top_p: float) -> None:
    draws = Draws.of([Sampling(temperature=0.7, top_k=top_k, top_p=top_p, seed=seed) for seed in range(9)], CPU)
    for place in range(30):
        scores = torch.randn(9, 1001, generator=torch.Generator().manual_seed(place)).round(decimals=1)
        which, places = kept(scores, draws), torch.full((9,), place)
        assert torch.equal(_draw_among_kept(scores, which, draws, places), _draw_masked(scores, which, draws, places))


def test_a_row_that_keeps_all_is_not_cut_by_its_neighbours_share() -> None:
    scores = torch.tensor([[0.0, -1000.0, 1.0]] * 2)  # one has no probability left in float32
    assert kept(scores, filters([0, 0], [1.0, 0.5])).tolist() == [[True, True, True], [False, False, True]]
