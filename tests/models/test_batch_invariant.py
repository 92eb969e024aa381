"""Products compute what they should, and on a CPU a row's bits are its own, whatever the library does."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import batch_invariant
from models.batch_invariant import (
    Doubled,
    Halved,
    Joined,
    Library,
    Linear,
    Packed,
    Product,
    Turned,
    linear,
    multiplies_bfloat16,
    product,
)

# Below and above the size from which a weight is packed at once, narrow and wide.
SHAPES = [(8, 24), (64, 445), (96, 445), (192, 96), (512, 512), (512, 1792), (1792, 512), (2560, 512)]
ROWS = (1, 2, 3, 5, 6, 8, 11, 15, 16, 17, 24, 33, 48, 63)
LAYOUTS = [Turned, Packed, Doubled, Halved]


def made_layer(width_in: int, width_out: int, *, bias: bool, few_rows: bool = False) -> Linear:
    torch.manual_seed(0)
    layer = Linear(width_in, width_out, bias=bias, few_rows=few_rows)
    torch.nn.init.normal_(layer.weight, std=width_in**-0.5)
    return layer.requires_grad_(False)


def released(layer: Linear) -> Linear:
    """Give a layer weights as released ones are, which float16 does not hold without a scale."""
    layer.weight.copy_(layer.weight.bfloat16())
    layer.weight[0, :2] = torch.tensor([3.0, 2**-20 + 2**-27])
    return layer


def assert_rows_are_their_own(multiply: Callable[[Tensor], Tensor], x: Tensor) -> None:
    together = multiply(x)
    for rows in ROWS:
        assert torch.equal(multiply(x[:rows]), together[:rows])
        assert torch.equal(multiply(x[64 - rows :].clone()), together[64 - rows :])
    assert torch.equal(multiply(x.view(4, 16, -1))[1, 3], together[19])


@pytest.mark.parametrize("few_rows", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), SHAPES)
def test_a_layer_that_is_laid_out_computes_what_it_did_and_a_rows_bits_are_its_own(
    width_in: int, width_out: int, bias: bool, few_rows: bool
) -> None:
    layer = made_layer(width_in, width_out, bias=bias, few_rows=few_rows)
    if few_rows:
        layer = released(layer)
    x, weight = torch.randn(64, width_in), layer.weight.clone()
    expected = F.linear(x, weight, layer.bias)
    layer.repack_weights()
    assert isinstance(layer.product, Halved) == few_rows
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert_rows_are_their_own(layer, x)
    assert layer.weight.numel() == 0 and torch.equal(layer.plain_weight(), weight)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_weight_is_multiplied_alike_and_read_back_however_it_is_laid_out(
    layout: Callable[[Tensor, Tensor | None], Product],
) -> None:
    layer = released(made_layer(96, 40, bias=True))
    weight, x, bias = layer.weight.clone(), torch.randn(7, 96), torch.randn(40)
    laid_out = layout(weight, bias)
    assert torch.equal(laid_out.weight(), weight) and laid_out.shape == (40, 96)
    for rows in (1, 7):
        found = laid_out(x[:rows])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, F.linear(x[:rows], weight, bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spoil", [1 + 2**-12, 2.0**-40, float("inf"), float("nan")])
def test_a_weight_that_float16_does_not_hold_stays_in_float32(spoil: float) -> None:
    weight = released(made_layer(64, 48, bias=False)).weight.clone()
    assert isinstance(product(weight, few_rows=True), Halved)
    weight[3, 5] = spoil
    assert not isinstance(product(weight, few_rows=True), Halved)


def test_a_torch_without_those_products_takes_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = made_layer(64, 48, bias=False).weight.bfloat16().float(), torch.randn(64, 64)
    monkeypatch.delattr(torch, "fbgemm_pack_gemm_matrix_fp16")
    laid_out = product(weight, few_rows=True)
    assert not isinstance(laid_out, Halved)
    assert_rows_are_their_own(laid_out, x)


def test_a_library_that_changes_rows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(layout: type[Product]) -> Callable[[Tensor, Tensor | None], Product]:
        class Careless(layout):
            def __call__(self, x: Tensor) -> Tensor:
                return super().__call__(x) + 1e-6 * len(x)

        return Careless

    layouts = {
        name: layout if layout is Doubled else careless(layout) for name, layout in batch_invariant._LAYOUTS.items()
    }
    monkeypatch.setattr(batch_invariant, "_LAYOUTS", layouts)
    monkeypatch.setattr(batch_invariant, "_chosen_layouts", {})
    laid_out = product(torch.randn(33, 70).bfloat16().float(), few_rows=True)
    assert isinstance(laid_out, Doubled)
    assert_rows_are_their_own(laid_out, torch.randn(64, 70))


def test_each_shape_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Product] = []
    monkeypatch.setattr(batch_invariant, "_keeps_rows", lambda multiply: tried.append(multiply) is None)
    monkeypatch.setattr(batch_invariant, "_chosen_layouts", {})
    for _ in range(3):
        product(torch.randn(5, 11))
        product(torch.randn(11, 5))
    assert len(tried) == 2


@pytest.mark.parametrize("bias", [True, False])
def test_joined_layers_give_side_by_side_what_each_gives(bias: bool) -> None:
    layers = [released(made_layer(64, width, bias=bias)) for width in (48, 16, 32)]
    joined, x = Joined(*layers), torch.randn(64, 64)
    before = joined(x)
    assert torch.equal(before, torch.cat([layer(x) for layer in layers], dim=-1))
    joined.repack_weights()
    for layer in layers:
        layer.repack_weights()  # as whoever lays out every module does; there is nothing left to lay out
        assert layer.product is None
    torch.testing.assert_close(joined(x), before, atol=1e-5, rtol=1e-5)
    assert_rows_are_their_own(joined, x)


def test_one_row_by_the_library_is_as_two() -> None:
    weight, x = torch.randn(48, 64), torch.randn(1, 64)
    assert torch.equal(linear(x, weight), F.linear(torch.cat((x, x)), weight)[:1])


def test_half_precision_stays_as_it_is_stored() -> None:
    layer = made_layer(1024, 1024, bias=False).half()
    weight = layer.weight
    layer.repack_weights()
    assert isinstance(layer.product, Library) and layer.plain_weight().data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_is_packed_where_a_cpu_multiplies_it(has_instructions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if has_instructions and not multiplies_bfloat16():
        pytest.skip("this CPU has no instructions for bfloat16")
    monkeypatch.setattr(batch_invariant, "multiplies_bfloat16", lambda: has_instructions)
    layer = made_layer(256, 192, bias=True).bfloat16()
    x, weight = torch.randn(3, 9, 256).bfloat16(), layer.weight.clone()
    expected = F.linear(x, weight, layer.bias)
    layer.repack_weights()
    assert isinstance(layer.product, Packed) == has_instructions
    torch.testing.assert_close(layer(x), expected, atol=2e-2, rtol=2e-2)
    assert layer(x[:1, :1]).shape == (1, 1, 192) and torch.equal(layer.plain_weight(), weight)


def test_a_library_that_refuses_bfloat16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(batch_invariant, "Packed", refuse)
    assert not multiplies_bfloat16.__wrapped__()
