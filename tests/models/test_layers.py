"""The layers that families share compute what they should."""

import pytest
import torch
from torch.nn import functional as F

from models.layers import attend_all, gelu_tanh, silu


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
