"""Choices are as likely as the reference (transformers 5.23) has it from the whole text, in every family."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import load_model
from models.engine import Engine, run_all
from models.engine import Sequence as Answering
from models.types import ModelInput, Sampling
from tests.models import mllama_reference as mllama
from tests.models import reference as aria
from tests.models import test_emu3 as emu3
from tests.models.mllama_ours import rows_from_an_image
from tests.models.mllama_sizes import SIZES as MLLAMA_SIZES
from tests.models.test_aria_parity import SIZES as ARIA_SIZES
from tests.models.test_aria_parity import rows_of

# Letters, unlike lengths, some that begin alike, one that is longer than a block.
CHOICES = (
    ([20], [21], [22], [23]),
    ([30, 31, 32], [30, 31], [33], [30, 34, 35, 36, 37]),
    ([40 + i for i in range(20)], [41]),
    ([50, 50], [50, 50, 50]),
    ([60, 61, 62],),
)

Theirs = Callable[[Sequence[int]], Mapping[str, Tensor]]  # the reference's inputs for a row and what follows it


def aria_pair(folder: Path) -> tuple[Any, list[tuple[ModelInput, Theirs]]]:
    size = ARIA_SIZES["grouped_heads"]

    def theirs(row: aria.Row) -> Theirs:
        return lambda ids: aria.batch([aria.Row([*row.ids, *ids], row.images)], size)

    reference = aria.write_reference(folder, size)
    return reference, [(row.ours(folder, size), theirs(row)) for row in rows_of(size)]


def mllama_pair(folder: Path) -> tuple[Any, list[tuple[ModelInput, Theirs]]]:
    size = MLLAMA_SIZES["released_in_small"]

    def theirs(row: mllama.Row) -> Theirs:
        return lambda ids: mllama.batch([row.then(ids)], size)

    rows = [*rows_from_an_image(size)[:4], mllama.Row([70, 71, 72])]
    return mllama.write_reference(folder, size), [(row.ours(size), theirs(row)) for row in rows]


def emu3_pair(folder: Path) -> tuple[Any, list[tuple[ModelInput, Theirs]]]:
    size = emu3.SIZES["one_head_of_keys"]

    def theirs(row: emu3.Row) -> Theirs:
        return lambda ids: replace(row, after=[*row.after, *ids]).theirs(size)

    rows = [*emu3.ROWS, emu3.Row([emu3.BOS, 55], [], [])]
    return emu3.write_reference(folder, size), [(row.ours(size), theirs(row)) for row in rows]


@pytest.mark.parametrize("pair", [aria_pair, mllama_pair, emu3_pair], ids=["aria", "mllama", "emu3"])
def test_choices_are_as_likely_as_the_reference_has_it(
    pair: Callable[[Path], tuple[Any, list[tuple[ModelInput, Theirs]]]], tmp_path: Path
) -> None:
    reference, rows = pair(tmp_path)
    inputs = [
        replace(given, choices=tuple(np.array(ids, np.int32) for ids in choices))
        for (given, _), choices in zip(rows, CHOICES, strict=True)
    ]
    sequences = [Answering("", one, Sampling()) for one in inputs]
    run_all(Engine(load_model(str(tmp_path), device="cpu"), slots=4, max_length=256), sequences)
    for sequence, (_, theirs), choices in zip(sequences, rows, CHOICES, strict=True):
        expected = [summed(reference, theirs(ids), ids) for ids in choices]
        assert sequence.error is None and sequence.completion is not None
        assert sequence.completion.choice_logprobs == pytest.approx(expected, abs=1e-4)
        assert sequence.completion.token_ids == tuple(choices[int(np.argmax(expected))])


@torch.inference_mode()
def summed(reference: Any, inputs: Mapping[str, Tensor], ids: Sequence[int]) -> float:
    """Return the sum of the log-probabilities of the last tokens of a text."""
    scores = reference(**inputs, use_cache=False).logits[0].float().log_softmax(-1)
    before = scores[-1 - len(ids) : -1]
    return float(before.double().gather(-1, torch.tensor(ids)[:, None]).sum())
