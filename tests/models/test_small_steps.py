"""Kernels of small steps give what torch's operations give: in Triton's interpreter, and on a GPU that is there."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import Rotation, rms_norm
from tests.gpu.make_believe import rotate_and_write

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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "num_keys", "width"), [(4, 2, 12), (3, 3, 64)])
def test_rotation_into_the_cache(heads: int, num_keys: int, width: int, dtype: torch.dtype) -> None:
    B, T, S = 3, 2, 40
    new = torch.randn(B, T, (heads + 2 * num_keys) * width).to(dtype)
    new = new.view(B, T, -1, width).transpose(1, 2)  # as a product leaves it
    places = torch.tensor([[0, 1], [38, 39], [7, 8]])
    slots = torch.arange(B * num_keys).view(B, num_keys, 1)
    rows = (slots * S + places[:, None]).flatten()
    for positions in (places[..., None], places[:1, :, None]):
        rotate = Rotation(positions, torch.rand(width // 2), dtype)
        stores = torch.zeros(2, 2, B, num_keys, S, width, dtype=dtype)
        found = rotate.into_cache(new, num_keys, *stores[0], rows)
        expected = rotate_and_write(new, num_keys, rotate._cos, rotate._sin, *stores[1], rows)
        assert torch.equal(expected, rotate(new[:, :heads]))
        near(found, expected)
        near(stores[0], stores[1])
