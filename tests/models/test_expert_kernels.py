"""The kernels of a mixture of experts give what torch's operations give: in Triton's interpreter, and on a GPU."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.aria.moe import MixtureOfExperts, choose_experts

kernels = pytest.importorskip(
    "models.kernels.experts", reason="Triton has no wheel for this platform; its interpreter runs the kernels here"
)


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.no_grad():
        yield


def mixture(num_experts: int, num_chosen: int, width: int, inner: int) -> MixtureOfExperts:
    config: Any = SimpleNamespace(
        hidden_size=width, intermediate_size=inner, moe_num_experts=num_experts, moe_topk=num_chosen,
        moe_num_shared_experts=2,
    )  # fmt: skip
    made = MixtureOfExperts(config)
    for weight in made.parameters():
        nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return made


def both(
    module: MixtureOfExperts, x: Tensor, normed: Tensor, scores: Tensor, *, few_rows: bool = True
) -> tuple[Tensor, Tensor]:
    """Return what the kernels give, and what torch's operations do."""
    fc1, fc2, shared = module.experts.fc1.weight, module.experts.fc2.weight, module.shared_experts(normed)
    found = kernels.add_mixture(x, normed, scores, module._num_chosen, fc1, fc2, shared, few_rows=few_rows)
    return found, x + (module.experts(normed, *choose_experts(scores, module._num_chosen)) + shared)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 6e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize(
    ("rows", "num_experts", "num_chosen", "width", "inner"),
    [(1, 4, 2, 32, 16), (9, 5, 1, 40, 10), (40, 4, 4, 20, 70), (40, 20, 6, 72, 36)],
)
@pytest.mark.parametrize("few_rows", [True, False])
def test_kernels_give_what_a_loop_over_experts_gives(
    rows: int, num_experts: int, num_chosen: int, width: int, inner: int, few_rows: bool, dtype: Any, tolerance: float
) -> None:
    module = mixture(num_experts, num_chosen, width, inner).to(dtype)
    x, normed = torch.randn(2, rows, width).to(dtype)
    # No two alike, since of equal scores torch may take any.
    scores = torch.rand(rows, 2 * num_experts).argsort(-1)[:, :num_experts].to(dtype) / num_experts
    found, expected = both(module, x, normed, scores, few_rows=few_rows)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


def test_more_rows_than_are_listed_at_once_all_for_one_expert() -> None:
    module = mixture(8, 2, 16, 8)
    x, normed = torch.randn(2, kernels.MOST_LISTED + 5, 16)
    scores = torch.rand(len(x), 8)
    scores[:, 3] = 2
    torch.testing.assert_close(*both(module, x, normed, scores), rtol=2e-5, atol=2e-5)


def test_of_equal_scores_the_first_are_taken() -> None:
    module = mixture(6, 2, 16, 8)
    x, normed = torch.randn(2, 4, 16)
    tied, apart = torch.tensor([[1.0, 5, 3, 3, 3, 1]] * 4), torch.tensor([[1.0, 5, 3, 2, 2, 1]] * 4)
    assert torch.equal(both(module, x, normed, tied)[0], both(module, x, normed, apart)[0])


@pytest.mark.parametrize("few_rows", [True, False])
def test_a_row_has_the_same_bits_in_any_company(few_rows: bool) -> None:
    module = mixture(8, 3, 48, 40)
    x, normed = torch.randn(2, 50, 48)
    scores, shared = torch.rand(50, 8), torch.randn(50, 48)

    def some(rows: Any) -> Tensor:
        fc1, fc2 = module.experts.fc1.weight, module.experts.fc2.weight
        given = x[rows], normed[rows], scores[rows], 3, fc1, fc2, shared[rows]
        found: Tensor = kernels.add_mixture(*given, few_rows=few_rows)
        return found

    together = some(slice(None))
    for rows in ([7], [49, 0, 7], list(range(49, 10, -1))):
        assert torch.equal(some(rows), together[rows])


def test_a_row_without_numbers_takes_no_experts_from_others() -> None:
    module = mixture(8, 3, 48, 40)
    x, normed = torch.randn(2, 40, 48)
    scores = torch.rand(40, 8)
    clean, _ = both(module, x, normed, scores)
    normed[::3], scores[::3] = torch.nan, torch.nan
    found, _ = both(module, x, normed, scores)
    whole = torch.arange(40) % 3 != 0
    assert torch.equal(found[whole], clean[whole]) and found[~whole].isnan().all()
