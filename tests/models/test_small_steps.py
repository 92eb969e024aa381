"""Kernels of small steps give what torch's operations give: in Triton's interpreter, and on a GPU that is there."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import rms_norm

small_steps = pytest.importorskip(
    "models.kernels.small_steps", reason="Triton has no wheel for this platform; its interpreter runs the kernels here"
)

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.inference_mode():
        yield


def near(found: Tensor, expected: Tensor) -> None:
    """Compare but for last bits: sums have another order, and the interpreter cuts bfloat16 off where a GPU rounds."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    rtol, atol = (2e-5, 1e-6) if found.dtype == torch.float32 else (3e-2, 1e-2)
    torch.testing.assert_close(found.float(), expected.float(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [32, 100])
def test_norms(width: int, dtype: torch.dtype) -> None:
    x, y = torch.randn(2, 3, 2, width).to(dtype)
    weight = torch.randn(width).to(dtype)
    near(small_steps.rms_norm(x, weight, 1e-5), rms_norm(x, weight, 1e-5))
    near(small_steps.rms_norm(x[:, :1], weight, 0.5), rms_norm(x[:, :1], weight, 0.5))
    total, normed = small_steps.add_rms_norm(x, y, weight, 1e-5)
    near(total, x + y)
    near(normed, rms_norm(x + y, weight, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_silu_product_of_two_and_of_halves(dtype: torch.dtype) -> None:
    both = torch.randn(5, 2 * 1100).to(dtype)
    for gate, up in ((both, both.flip(0)), both.chunk(2, -1), both.view(5, 1100, 2).unbind(-1)):
        near(small_steps.silu_product(gate, up), F.silu(gate) * up)
