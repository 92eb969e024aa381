"""Products compute what they should, and on a CPU a row's bits are its own, whatever the library does."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import batch_invariant
from models.batch_invariant import Linear, linear, repacked, unpacked

# Below and above the size from which a weight is packed at once, narrow and wide.
SHAPES = [(8, 24), (64, 445), (96, 445), (192, 96), (512, 512), (512, 1792), (1792, 512), (2560, 512)]
ROWS = (1, 2, 3, 5, 6, 8, 11, 15, 16, 17, 24, 33, 48, 63)
LAYOUTS = ["library", "packed", "float64"]


def made_layer(width_in: int, width_out: int, *, bias: bool) -> Linear:
    torch.manual_seed(0)
    layer = Linear(width_in, width_out, bias=bias)
    torch.nn.init.normal_(layer.weight, std=width_in**-0.5)
    return layer.requires_grad_(False)


def assert_rows_are_their_own(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> None:
    together = linear(x, weight, bias)
    for rows in ROWS:
        assert torch.equal(linear(x[:rows], weight, bias), together[:rows])
        assert torch.equal(linear(x[64 - rows :].clone(), weight, bias), together[64 - rows :])
    assert torch.equal(linear(x.view(4, 16, -1), weight, bias)[1, 3], together[19])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), SHAPES)
def test_a_repacked_layer_computes_what_it_did_and_a_rows_bits_are_its_own(
    width_in: int, width_out: int, bias: bool
) -> None:
    layer = made_layer(width_in, width_out, bias=bias)
    x = torch.randn(64, width_in)
    expected = F.linear(x, layer.weight, layer.bias)
    layer.repack_weights()
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert_rows_are_their_own(layer.weight, x, layer.bias)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_weight_is_multiplied_alike_and_read_back_however_it_is_packed(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_invariant, "_layout_for", lambda *_: layout)
    weight, x, bias = torch.randn(40, 96), torch.randn(7, 96), torch.randn(40)
    packed = repacked(weight)
    assert torch.equal(unpacked(packed), weight)
    for rows in (1, 7):
        found = linear(x[:rows], packed, bias)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, F.linear(x[:rows], weight, bias), atol=1e-5, rtol=1e-5)


def test_a_library_that_changes_rows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = batch_invariant._multiply

    def careless(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return real(x, weight, bias) if weight.dtype == torch.float64 else real(x, weight, bias) + 1e-6 * len(x)

    monkeypatch.setattr(batch_invariant, "_multiply", careless)
    monkeypatch.setattr(batch_invariant, "_chosen_layouts", {})
    weight, x = torch.randn(33, 70), torch.randn(64, 70)
    packed = repacked(weight)
    assert packed.dtype == torch.float64
    assert_rows_are_their_own(packed, x)


def test_each_shape_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(batch_invariant, "_keeps_rows", lambda weight, _: tried.append(weight.numel()) is None)
    monkeypatch.setattr(batch_invariant, "_chosen_layouts", {})
    for _ in range(3):
        repacked(torch.randn(5, 11))
        repacked(torch.randn(11, 5))
    assert len(tried) == 2


def test_half_precision_stays_as_it_is_stored() -> None:
    layer = made_layer(1024, 1024, bias=False).bfloat16()
    layer.repack_weights()
    assert layer.weight.is_contiguous() and not layer.weight.is_mkldnn
