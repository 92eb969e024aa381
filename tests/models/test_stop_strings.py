"""A stop string ends an answer wherever it falls and whatever it is made of; the text before it is the answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from models import Family, Request, Sampling, ask
from models.types import Answer, Completion, ModelInput, Processor
from tests.tiny import FAMILIES

# Special tokens that end no answer by themselves.
MARKS: dict[Family, str] = {"aria": "<fim_middle>", "mllama": "<|python_tag|>", "emu3": "<|image token|>"}
ENDS: dict[Family, str] = {"aria": "<|im_end|>", "mllama": "<|eot_id|>", "emu3": "<|extra_204|>"}


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[family](tmp_path_factory.mktemp(family))


def ids_after(processor: Processor, text: str, start: int) -> tuple[int, ...]:
    ids: tuple[int, ...] = tuple(processor.prepare(Request(prompt=text)).token_ids[start:].tolist())
    return ids


def ended(processor: Processor, ids: Sequence[int], *stop: str) -> tuple[int | None, str]:
    """Return after how many ids an answer ends, asked after every one as the engine does, and its text."""
    sampling = Sampling(stop=stop)
    is_over = processor.stop_condition(sampling)
    assert is_over is not None
    count = next((n for n in range(1, len(ids) + 1) if ids[n - 1] in processor.stop_ids or is_over(ids[:n])), None)
    emitted = tuple(ids[:count])
    completion = Completion(emitted, (0.0,) * len(emitted), "stop")
    answer: Answer = processor.to_answer(ModelInput("", np.array([1], np.int32)), completion, sampling)
    return count, answer.text


@pytest.fixture(scope="module")
def answer_ids(processor: Processor, family: Family) -> tuple[list[int], int]:
    """An answer `red yes MARK no END` in ids, and the place of MARK."""
    mark = MARKS[family]
    start = len(processor.prepare(Request(prompt="a")).token_ids) - 1
    ids = list(ids_after(processor, f"red yes{mark}no{ENDS[family]}", start))
    [number] = ids_after(processor, mark, start)
    return ids, ids.index(number)


def test_a_special_token_as_stop_string_ends_an_answer(
    processor: Processor, family: Family, answer_ids: tuple[list[int], int]
) -> None:
    ids, place = answer_ids
    assert ended(processor, ids, MARKS[family]) == (place + 1, "red yes")
    assert ended(processor, ids, "zzz") == (len(ids), "red yesno")


def test_a_stop_string_may_be_special_in_part(
    processor: Processor, family: Family, answer_ids: tuple[list[int], int]
) -> None:
    ids, place = answer_ids
    mark = MARKS[family]
    assert ended(processor, ids, f"yes{mark}") == (place + 1, "red ")
    count, text = ended(processor, ids, f"s{mark}n")
    assert count in (place + 2, place + 3) and text == "red ye"
    assert ended(processor, ids, mark[:4]) == (place + 1, "red yes")
    assert ended(processor, ids, f"no{ENDS[family]}") == (len(ids), "red yes")


def test_specials_inside_hide_no_stop_string(
    processor: Processor, family: Family, answer_ids: tuple[list[int], int]
) -> None:
    ids, place = answer_ids
    many = [*ids[:place], *[ids[place]] * 40, *ids[place + 1 :]]
    count, text = ended(processor, many, "sno")
    assert count is not None and count <= len(many) - 1 and text == "red ye"


@pytest.mark.parametrize(("stop", "text"), [("red", ""), ("r", ""), ("e", "r"), ("d y", "re"), (" yes", "red")])
def test_a_stop_string_may_begin_anywhere(
    processor: Processor, answer_ids: tuple[list[int], int], stop: str, text: str
) -> None:
    count, found = ended(processor, answer_ids[0], stop)
    assert count is not None and count <= answer_ids[1] and found == text


def test_the_first_of_several_holds(processor: Processor, family: Family, answer_ids: tuple[list[int], int]) -> None:
    ids, place = answer_ids
    assert ended(processor, ids, MARKS[family], "yes")[1] == "red "
    assert ended(processor, ids, "no", MARKS[family]) == (place + 1, "red yes")


def test_the_end_of_a_turn_as_stop_string_changes_nothing(
    processor: Processor, family: Family, answer_ids: tuple[list[int], int]
) -> None:
    ids, _ = answer_ids
    assert ended(processor, ids, ENDS[family]) == (len(ids), "red yesno") == ended(processor, ids, "zzz")


def test_a_whole_run_ends_where_the_special_token_is_emitted(folder: Path, processor: Processor) -> None:
    """Random weights emit anything: the stop string is what the answer without one emits."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {i: token for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    for seed in range(20):
        sampling = Sampling(max_new_tokens=60, temperature=3.0, seed=seed)
        [free] = ask(str(folder), [Request(prompt="yes", sampling=sampling)], device="cpu")
        shown = [n for n, i in enumerate(free.token_ids) if i in special and i not in processor.stop_ids]
        if shown:
            break
    stop = special[free.token_ids[shown[0]]].content
    asked = Request(prompt="yes", sampling=Sampling(max_new_tokens=60, temperature=3.0, seed=seed, stop=(stop,)))
    [answer] = ask(str(folder), [asked], device="cpu")
    assert answer.token_ids == free.token_ids[: shown[0] + 1] and answer.finish_reason == "stop"
    assert stop not in answer.text and free.text.startswith(answer.text)
