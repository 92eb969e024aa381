"""The kernel that chooses tokens takes those of the sampler: in Triton's interpreter, and on a GPU that is there."""

from collections.abc import Iterator

import pytest
import torch

from models.sampler import Draws, choose_in_torch, kind_of
from models.types import Sampling

draw = pytest.importorskip(
    "models.kernels.draw", reason="Triton has no wheel for this platform; its interpreter runs the kernels here"
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.7, top_k=50, seed=2**63 + 5),
    Sampling(temperature=1.3, top_k=1, seed=3),
    Sampling(temperature=0.5, top_k=5000, seed=4),
]


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.device(DEVICE), torch.inference_mode():
        yield


def drawn(logits: torch.Tensor, place: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = Draws.of(SAMPLINGS, DEVICE)
    columns = (column[:, 0] for column in (draws.temperatures, draws.top_k, draws.seeds))
    ids, logprobs = draw.draw_tokens(logits, *columns, torch.full((len(SAMPLINGS),), place))
    return ids, logprobs


@pytest.mark.parametrize("size", [700, 5000])
def test_tokens_are_those_of_the_sampler(size: int) -> None:
    for place in range(3):
        logits = torch.randn(len(SAMPLINGS), size) * 3
        logits[:, 5] = logits[:, 6] = logits.amax(-1)  # ties: the first of the greatest, and whatever top-k leaves
        ids, logprobs = drawn(logits, place)
        for row, sampling in enumerate(SAMPLINGS):
            assert kind_of(sampling) == ("likeliest" if row == 0 else "drawn" if row == 1 else "filtered")
            own = logits[row : row + 1], Draws.of([sampling], DEVICE), torch.tensor([place])
            token, logprob = choose_in_torch(*own)
            assert ids[row] == token[0]
            torch.testing.assert_close(logprobs[row], logprob[0], rtol=1e-5, atol=1e-5)


def test_a_row_of_nan_tells_of_it_and_costs_no_other_row_anything() -> None:
    logits = torch.randn(len(SAMPLINGS), 100)
    expected, _ = drawn(logits, 0)
    logits[2, 7] = torch.nan
    ids, logprobs = drawn(logits, 0)
    assert logprobs[2].isnan() and 0 <= ids[2] < 100 and not logprobs[[0, 1, 3, 4]].isnan().any()
    assert ids[[0, 1, 3, 4]].tolist() == expected[[0, 1, 3, 4]].tolist()
