"""The reference implementation stays quiet and offline while it is asked; and fixtures that follow from a folder."""

import json
import os
from pathlib import Path
from typing import get_args

import pytest

from models import Family, load_processor
from models.types import Processor

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module", params=get_args(Family))
def family(request: pytest.FixtureRequest) -> Family:
    """One family after another."""
    named: Family = request.param
    return named


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    """The processor of the checkpoint that a module's tests share."""
    return load_processor(str(folder))


@pytest.fixture(scope="module")
def known(folder: Path) -> dict[str, int]:
    """The ids of all tokens of an Emu3."""
    ids: dict[str, int] = json.loads((folder / "config.json").read_text())["vocabulary_map"]
    return ids
