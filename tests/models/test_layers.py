"""The layers that families share compute what they should."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import layers
from models.layers import attend_all, gated, gelu_tanh, silu, turned


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


def test_a_gate_beside_what_it_lets_through_is_both_multiplied() -> None:
    gate, up = torch.randn(2, 5, 48).unbind(0)
    assert torch.equal(gated(torch.cat((gate, up), dim=-1)), silu(gate) * up)


@pytest.mark.parametrize("tokens", [1, 3, 9])
@pytest.mark.parametrize("size", [7, 1025])
def test_what_a_sequence_finds_in_shared_keys_is_attention_and_no_matter_of_company(tokens: int, size: int) -> None:
    query, key, value = torch.randn(9, 4, tokens, 8), torch.randn(2, size, 8), torch.randn(2, size, 8)
    repeated = (one.repeat_interleave(2, dim=0).expand(9, -1, -1, -1) for one in (key, value))
    expected = F.scaled_dot_product_attention(query, *repeated).transpose(1, 2).flatten(2)
    for keys in (key, turned(key)):
        together = attend_all(query, keys, value)
        torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)
        for rows in range(1, 9):
            assert torch.equal(attend_all(query[9 - rows :], keys, value), together[9 - rows :])


def test_a_library_that_changes_rows_reads_shared_keys_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    real = layers._attend_once

    def careless(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return real(query, key, value) + 1e-6 * len(query)

    monkeypatch.setattr(layers, "_attend_once", careless)
    monkeypatch.setattr(layers, "_kept", {})
    query, key, value = torch.randn(5, 4, 1, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    assert torch.equal(attend_all(query[:2], key, value), attend_all(query, key, value)[:2])
