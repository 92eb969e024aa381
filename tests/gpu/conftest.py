"""What the tests of this room share."""

from collections.abc import Iterator
from typing import get_args

import pytest
import torch

from models import Family


@pytest.fixture(params=get_args(Family))
def family(request: pytest.FixtureRequest) -> Family:
    """Each family."""
    named: Family = request.param
    return named


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: of such small products a second one takes ten times the time where others work too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
