"""Answers that follow a grammar and are guided: equal to a plain loop without cache, whatever runs beside them."""

from collections.abc import Sequence as Ordered

import numpy as np
import pytest
import torch
from torch import Tensor

from models.cache.slots import CacheView
from models.emu3.grid import Ends, Grid, PictureGrammar
from models.engine import Engine, Prompt, Sequence, run_all
from models.types import ModelInput, PromptTooLong, Sampling
from tests.models.test_engine import Toy

ENDS = Ends(line=30, frame=31, image=32, text=33)
CODES = range(10, 29)


class Painter(Toy):
    """The toy, for prompts whose layout is a grid: their answers are pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[int] = []
        self.scored: list[tuple[int, range | None]] = []

    def prompt(self, inputs: Ordered[ModelInput]) -> list[Prompt]:
        return [self._prompt(i) for i in inputs]

    def _prompt(self, given: ModelInput) -> Prompt:
        grammar = PictureGrammar(Grid(*given.layout), ENDS, CODES) if given.layout else None
        negative = None if given.negative is None else self.embed(torch.from_numpy(given.negative).long())
        return Prompt(self.embed(torch.from_numpy(given.token_ids).long()), grammar=grammar, negative=negative)

    def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
        self.widths.append(embeddings.shape[1])
        return super().decode(embeddings, cache_view)

    def logits(self, hidden: Tensor, choices: range | None = None) -> Tensor:
        self.scored.append((len(hidden), choices))
        return super().logits(hidden, choices)


@pytest.fixture
def toy() -> Painter:
    return Painter()


def picture(
    ids: list[int], grid: tuple[int, int], negative: list[int] | None, scale: float = 3.0, **sampling: float
) -> Sequence:
    rows, columns = grid
    given = ModelInput(
        "",
        np.array(ids, np.int32),
        layout=grid,
        negative=None if negative is None else np.array(negative, np.int32),
        num_new_tokens=rows * (columns + 1) + 3,
    )
    return Sequence("", given, Sampling(guidance_scale=scale, **sampling))


def pictures(**sampling: float) -> list[Sequence]:
    """Return pictures of unlike grids, prompts and scales, some unguided, and a text between them."""
    words = Sequence("", ModelInput("", np.array([1, 2, 3], np.int32)), Sampling(max_new_tokens=11))
    return [
        picture([3, 1, 4], (2, 3), [1, 5], **sampling),
        picture([9], (3, 1), [2, 7, 1, 8, 2, 8], scale=1.5, **sampling),
        words,
        picture([5, 3], (1, 4), None, **sampling),
        picture([3, 1, 4], (2, 2), [1, 5], scale=0.0, **sampling),
        picture([6] * 17, (1, 1), [1, 5], scale=1.0, **sampling),
        picture([8, 8], (4, 2), [1, 5], **sampling),
    ]


def answered(toy: Painter, sequences: list[Sequence], slots: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    run_all(Engine(toy, slots=slots, max_length=64), sequences)
    assert [s.error for s in sequences] == [None] * len(sequences)
    return [(s.completion.token_ids, s.completion.logprobs) for s in sequences if s.completion is not None]


def scores_after(toy: Painter, ids: list[int]) -> Tensor:
    """Return the scores after a text, computed anew without a cache."""
    alone = Engine(toy, slots=1, max_length=64)
    seen: list[Tensor] = []
    real = Toy.logits

    def keep(self: Toy, hidden: Tensor, choices: range | None = None) -> Tensor:
        seen.append(real(self, hidden))
        return real(self, hidden, choices)

    given = ModelInput("", np.array(ids, np.int32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Painter, "logits", keep)
        run_all(alone, [Sequence("", given, Sampling(max_new_tokens=1))])
    return seen[0][0]


def drawn_plainly(toy: Painter, one: Sequence) -> tuple[list[int], list[float]]:
    """Draw greedily in a plain loop, a token at a time, by the authors' formula on log-probabilities."""
    grammar, scale = PictureGrammar(Grid(*one.model_input.layout), ENDS, CODES), one.sampling.guidance_scale
    ids: list[int] = []
    logprobs: list[float] = []
    while not grammar.is_over(len(ids)):
        logp = scores_after(toy, [*one.model_input.token_ids, *ids]).log_softmax(-1)
        if one.model_input.negative is not None:
            other = scores_after(toy, [*one.model_input.negative, *ids]).log_softmax(-1)
            logp = scale * logp + (1 - scale) * other
        guided = logp[CODES.start : CODES.stop].log_softmax(-1)
        best = int(guided.argmax())
        forced = grammar.forced(len(ids) + 1)
        ids += [CODES.start + best, *forced]
        logprobs += [guided[best].item(), *(0.0 for _ in forced)]
    return ids, logprobs


@pytest.mark.parametrize("slots", [2, 3, 5, 16])
def test_pictures_are_those_of_a_plain_loop_in_any_company(toy: Painter, slots: int) -> None:
    mixed = pictures()
    for one, (ids, logprobs) in zip(mixed, answered(toy, mixed, slots), strict=True):
        if one.model_input.layout:
            expected, expected_logprobs = drawn_plainly(toy, one)
            assert list(ids) == expected
            assert logprobs == pytest.approx(expected_logprobs, abs=1e-4)
    [text] = answered(toy, [pictures()[2]], slots=1)
    assert mixed[2].completion is not None and mixed[2].completion.token_ids == text[0]


def test_guidance_matters(toy: Painter) -> None:
    ids = [3, 1, 4]
    drawn = [answered(toy, [picture(ids, (3, 3), [1, 5], scale=scale)], 2)[0][0] for scale in (0.0, 1.0, 3.0)]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("slots", [2, 7])
def test_a_drawn_picture_is_the_same_alone_and_in_company(toy: Painter, slots: int) -> None:
    def drawn() -> list[Sequence]:
        return pictures(temperature=1.0, top_k=8, seed=11)

    together = [ids for ids, _ in answered(toy, drawn(), slots)]
    assert together == [answered(toy, [one], 2)[0][0] for one in drawn()]


def test_a_scale_of_one_is_no_guidance_and_takes_no_second_lane(toy: Painter) -> None:
    plain = answered(toy, [picture([3, 1], (2, 2), None)], 1)
    assert answered(toy, [picture([3, 1], (2, 2), [1, 5], scale=1.0)], 1) == plain


def test_what_comes_by_itself_costs_no_step_no_head_and_no_choice(toy: Painter) -> None:
    engine = Engine(toy, slots=2, max_length=64)
    run_all(engine, [picture([3, 1, 4], (3, 4), [1, 5])])
    num_codes = 12
    # The negative prompt, and the prompt. Then a step for each further code; the two that follow an end of line feed it
    # along, and the four closing tokens are never fed. Both branches are one row for the head.
    assert toy.widths == [16, 16, *([1] * 3), 2, *([1] * 3), 2, *([1] * 3)]
    assert toy.scored == [(1, CODES)] * num_codes


def test_one_negative_prompt_is_prefilled_once_for_all_who_share_it(toy: Painter) -> None:
    engine = Engine(toy, slots=8, max_length=64)
    batch = [picture([3, n], (2, 2), [1, 5, 7]) for n in range(4)]
    late = picture([9, 9], (2, 2), [1, 5, 7])
    for sequence in batch:
        engine.submit(sequence)
    engine.step()
    assert (engine.num_asked, engine.num_prefilled) == (4 * (2 + 3), 4 * 2 + 3)
    run_all(engine, [])
    assert engine.is_idle
    run_all(engine, [late])
    assert engine.num_prefilled == 5 * 2 + 3  # it is kept, though nobody runs who has it
    for sequence in (*batch, late):
        assert sequence.completion is not None
        assert list(sequence.completion.token_ids) == drawn_plainly(toy, sequence)[0]


def test_guidance_in_a_single_slot_is_refused(toy: Painter) -> None:
    one = picture([3], (1, 1), [1])
    run_all(Engine(toy, slots=1, max_length=64), [one])
    assert str(one.error) == "guidance takes 2 slots, but slots is 1"


def test_a_picture_that_does_not_fit_is_refused_with_its_length(toy: Painter) -> None:
    one = picture([3], (7, 7), [1] * 9)
    run_all(Engine(toy, slots=2, max_length=64), [one])
    assert isinstance(one.error, PromptTooLong)
    assert "the prompt has 9 tokens and the answer up to 59: 68 together" in str(one.error)


def test_a_picture_whose_scores_are_no_numbers_ends_alone(toy: Painter) -> None:
    bad, good = picture([38], (2, 2), [1, 5]), picture([3, 1], (2, 2), [1, 5])
    expected = drawn_plainly(toy, good)[0]
    run_all(Engine(toy, slots=4, max_length=64), [bad, good])
    assert isinstance(bad.error, ArithmeticError)
    assert good.completion is not None and list(good.completion.token_ids) == expected


@pytest.mark.parametrize("num_parts", [2, 3, 5])
def test_devices_that_each_work_on_a_part_answer_as_one_does(toy: Painter, num_parts: int) -> None:
    def wishes() -> list[Sequence]:
        return pictures(temperature=1.0, top_k=8, seed=11)

    expected = [ids for ids, _ in answered(toy, wishes(), 7)]
    spread = Engine(toy, slots=7, max_length=64)
    spread._num_parts = num_parts
    drawn, events = wishes(), []
    spread._lanes.answer, choose = lambda *given: events.append("choose") or choose(*given), spread._lanes.answer
    toy.widths = events
    run_all(spread, drawn)
    assert [one.completion.token_ids for one in drawn if one.completion] == expected
    # What a part has found is chosen from before the next one is fed: so the first may go on while the last is fed.
    assert any(events[at : at + 3] == [1, "choose", 1] for at in range(len(events)))


@pytest.mark.parametrize("window", [2, 3, 4, 8])
@pytest.mark.parametrize("slots", [2, 7])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_k": 8, "seed": 11}], ids=["likeliest", "drawn"])
def test_several_tokens_a_step_are_those_that_one_at_a_time_would_be(
    toy: Painter, window: int, slots: int, sampling: dict[str, float]
) -> None:
    def wishes() -> list[Sequence]:
        return [one for one in pictures(**sampling) if one.model_input.is_drawn]

    expected = answered(toy, wishes(), slots)
    plain, toy.widths = toy.widths, []
    found = wishes()
    run_all(Engine(toy, slots=slots, max_length=64, speculate=window), found)
    assert [one.error for one in found] == [None] * len(found)
    for one, (ids, logprobs) in zip(found, expected, strict=True):
        assert one.completion is not None
        assert one.completion.token_ids == ids
        assert one.completion.logprobs == pytest.approx(logprobs, abs=1e-5)
    assert window in toy.widths and len(toy.widths) <= len(plain)


def test_right_guesses_save_steps(toy: Painter) -> None:
    expected = answered(toy, [picture([3, 1], (6, 8), [1, 5])], 2)
    plain, toy.widths = len(toy.widths), []
    one = picture([3, 1], (6, 8), [1, 5])
    run_all(Engine(toy, slots=2, max_length=64, speculate=8), [one])
    assert one.completion is not None and one.completion.token_ids == expected[0][0]
    assert len(toy.widths) < 0.8 * plain


def test_windows_that_do_not_fit_are_given_up_and_the_picture_is_the_same(
    toy: Painter, caplog: pytest.LogCaptureFixture
) -> None:
    class Narrow(Painter):
        def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
            if embeddings.shape[1] == 4:
                raise torch.OutOfMemoryError("a window is too much")
            return super().decode(embeddings, cache_view)

    expected, drawn = answered(toy, pictures(), 5), pictures()
    run_all(Engine(Narrow(), slots=5, max_length=64, speculate=4), drawn)
    assert [one.completion.token_ids for one in drawn if one.completion] == [ids for ids, _ in expected]
    assert [record.message for record in caplog.records] == [
        "too little memory for windows of 4 tokens: pictures are drawn one by one"
    ]
