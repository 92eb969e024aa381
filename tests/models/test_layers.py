"""The layers that families share compute what they should, and on a CPU a row's bits are its own."""

import pytest
import torch
from torch.nn import functional as F

from models.layers import PACKED_NUMBERS, Linear, attend_all, gelu_tanh, silu

# Below and above the size from which a weight goes into oneDNN's layout, narrow and wide.
SHAPES = [(96, 445), (192, 96), (512, 512), (512, 1792), (1792, 512), (2560, 512)]
ROWS = (1, 2, 3, 5, 8, 15, 16, 17, 33, 64)


def linear(width_in: int, width_out: int, *, bias: bool) -> Linear:
    torch.manual_seed(0)
    layer = Linear(width_in, width_out, bias=bias)
    torch.nn.init.normal_(layer.weight, std=width_in**-0.5)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), SHAPES)
def test_a_settled_layer_computes_what_it_did_and_a_rows_bits_are_its_own(
    width_in: int, width_out: int, bias: bool
) -> None:
    layer = linear(width_in, width_out, bias=bias)
    x = torch.randn(64, width_in)
    expected = F.linear(x, layer.weight, layer.bias)
    layer.settle()
    assert layer.weight.is_mkldnn == (width_in * width_out >= PACKED_NUMBERS and torch.backends.mkldnn.is_available())
    together = layer(x)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)
    for rows in ROWS:
        assert torch.equal(layer(x[:rows]), together[:rows])
    assert torch.equal(layer(x.view(4, 16, -1))[1, 3], together[19])


def test_half_precision_stays_as_it_is_stored() -> None:
    layer = linear(1024, 1024, bias=False).bfloat16()
    layer.settle()
    assert layer.weight.is_contiguous() and not layer.weight.is_mkldnn


@pytest.mark.parametrize("width", [1, 7, 48, 96, 1792])
def test_a_gate_has_the_same_bits_wherever_its_row_stands(width: int) -> None:
    x = 3 * torch.randn(40, width)
    for function, reference in ((silu, F.silu), (gelu_tanh, lambda y: F.gelu(y, approximate="tanh"))):
        together = function(x)
        torch.testing.assert_close(together, reference(x), atol=1e-6, rtol=1e-5)
        for rows in range(1, 40):
            assert torch.equal(function(x[:rows].clone()), together[:rows])


def test_a_gate_far_below_zero_is_zero_and_not_a_fault() -> None:
    assert silu(torch.tensor([-1e4, -100.0, 100.0])).tolist() == [0.0, 0.0, 100.0]


def test_reading_keys_once_for_all_finds_the_same() -> None:
    query, key, value = torch.randn(5, 4, 3, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    each = attend_all(query, key, value, is_folded=False)
    torch.testing.assert_close(attend_all(query, key, value, is_folded=True), each)
