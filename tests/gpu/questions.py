"""Tiny models of random weights on a device, and what they are asked; the device may be a make-believe one."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from models import Family, Sampling, load_model
from models.engine import Engine, Sequence, run_all
from models.llama import FamilyModel
from models.types import Completion, ModelInput
from tests.tiny import FAMILIES

GREEDY = Sampling(max_new_tokens=64)
DRAWING = Sampling(temperature=1.0, top_k=16, guidance_scale=3.0)
GRID = (3, 4)  # of a picture's codes


def tiny_model(family: Family, device: str, dtype: str, **text: Any) -> FamilyModel:
    """Return a model with changes to its decoder's configuration."""
    with TemporaryDirectory() as folder:
        return load_model(str(FAMILIES[family](Path(folder), text=text)), device=device, dtype=dtype)


def asked(model: FamilyModel, family: Family, count: int, sampling: Sampling, length: int = 8) -> list[Sequence]:
    """Return questions of about `length` tokens: each about a picture of its own, or for one, as the family has it."""
    random, found = np.random.default_rng(0), []
    for number in range(count):
        ids = random.integers(20, 100, length + number % 5).astype(np.int32)
        picture, name = random.integers(0, 255, (28, 28, 3), dtype=np.uint8), str(number)
        if sampling.guidance_scale != 1:
            num_tokens = GRID[0] * (GRID[1] + 1) + 3  # codes, ends of lines, and what ends a picture
            given = ModelInput("", ids, layout=GRID, negative=ids[:5], num_new_tokens=num_tokens)
        elif family == "emu3":
            given = ModelInput("", ids)
        else:
            rows = 1 if family == "mllama" else 2  # an Aria's tile of 28 x 28 pixels becomes two tokens
            ids[2 : 2 + rows] = model.config.image_token_index
            layout = (1,) if family == "mllama" else (rows,)
            given = ModelInput("", ids, (picture,), layout, rows, (name,))
        found.append(Sequence(name, given, sampling))
    return found


def decoding(model: FamilyModel, family: Family, lanes: int, sampling: Sampling = GREEDY, length: int = 8) -> Engine:
    """Return an engine that has just begun to decode so many questions, and whose next step does nothing else."""
    engine = Engine(model, slots=2 * lanes, max_length=256)
    sequences = asked(model, family, lanes, sampling, length)
    for sequence in sequences:
        engine.submit(sequence)
    engine.step()
    engine.step()
    assert [one.error for one in sequences if one.error] == [] and engine.num_running == lanes
    return engine


def answered(family: Family, device: str, samplings: Iterable[Sampling], dtype: str = "float32") -> list[Completion]:
    """Return an answer with each sampling, on fewer slots than there are questions."""
    model = tiny_model(family, device, dtype)
    sequences = [asked(model, family, number + 1, sampling)[number] for number, sampling in enumerate(samplings)]
    run_all(Engine(model, slots=3, max_length=128), sequences)
    assert [one.error for one in sequences if one.error] == []
    return [one.completion for one in sequences if one.completion]
