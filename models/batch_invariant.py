"""Batch-invariant linear layers: on a CPU a row's result has the same bits beside any number of other rows.

An answer must not depend on what is answered beside it, and a batch is nothing but rows of one matrix product. No
library promises that: which kernel a product takes, and so how a row is rounded, depends on how many rows there are,
on the shape, the CPU and the number of threads. So each weight is laid out in the fastest way that is seen to keep a
row's bits on this machine, for the shape at hand (`product`):

- FBGEMM's, with the weight in float16 and all sums in float32, for what a decoder reads again and again for a few rows:
  such a step takes the time of that reading, and half as much is read, and held. Only a weight that float16 holds
  exactly, but for a power of two, is held so; released ones, in bfloat16, are. So the product is that of the float32
  weight, rounded where float32 is rounded. Hundreds of rows take up to a quarter longer than by oneDNN;
- the library's own product (MKL, OpenBLAS): it keeps bits on Intel's CPUs with AVX-512, for small weights;
- oneDNN's on a weight packed for it: it did on every CPU and instruction set tried, but each call takes some 17
  microseconds more, which is what a whole small product takes;
- the library's in float64, rounded to float32: two sums that differ in float64's last bits are the same float32 but for
  one in about 10^8, whatever the library does.

A single row is always multiplied as two: one row alone is a vector, for which libraries have another path. FBGEMM has
none.

In bfloat16 nothing is promised of bits. On a CPU that multiplies it by itself, weights are packed by oneDNN, which else
would do so at each call.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Weights of so many numbers are tried packed first: MKL would copy them into a layout of its own at each call, and 8
# rows on 512 x 1792 take 0.7 of its best time. For smaller ones a call of oneDNN costs more than it saves.
PACKED_NUMBERS = 2**19

# Numbers of rows whose results must be those that they have among 64, and numbers among which those 64 must keep them:
# odd ones and those around a power of two, where libraries change their paths, and enough for threads to share them.
FEW_ROWS, ROWS, MANY_ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33), 64, (100, 237, 480, 1000)
# Multiplications of one trial at most; a weight of 4096 x 14336 is then tried with no more than 64 rows.
TRIED_NUMBERS = 2**29
# The largest exponent of a float16 below infinity, and the least of a bit that it holds.
LARGEST_EXPONENT = 15


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias by the library; on a CPU one row as two.

    Args:
        x: (…, in).
        weight: (out, in).
        bias: (out,).
    """
    if x.device.type == "cpu" and x.shape[:-1].numel() == 1:
        return _one_as_two(x, lambda rows: F.linear(rows, weight, bias))
    return F.linear(x, weight, bias)


class Product(Protocol):
    """x @ weight.T + bias with a weight that is laid out for it; see the module for a row's bits.

    Attributes:
        shape: (out, in).
    """

    shape: tuple[int, int]

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""

    def weight(self) -> Tensor:
        """Return the weight (out, in) as it was."""


def product(weight: Tensor, bias: Tensor | None = None, *, few_rows: bool = False) -> Product:
    """Lay a weight out for products.

    On a GPU, and in half precision on a CPU that does not multiply it by itself, it stays as it is. The result may
    share memory with what is given.

    Args:
        weight: (out, in).
        bias: (out,).
        few_rows: It is mostly multiplied by few rows, so that reading it takes the time.
    """
    if weight.device.type != "cpu":
        return Library(weight, bias)
    if weight.dtype == torch.bfloat16 and multiplies_bfloat16():
        return Packed(weight, bias)
    if weight.dtype != torch.float32:
        return Library(weight, bias)
    exponent = _exponent(weight) if few_rows else None
    return _LAYOUTS[_layout_for(weight, bias, exponent)](weight, bias)


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16 (AVX512-BF16, AMX), and oneDNN uses them."""
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    half = torch.ones(16, 16, dtype=torch.bfloat16)
    try:
        return torch.equal(Packed(half, None)(half), 16 * half)
    except RuntimeError:  # oneDNN is not there, or was told to leave these instructions alone
        return False


class Library:
    """The library's product, by a weight as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.shape = _shape(weight)
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """See Product."""
        return linear(x, self._weight, self._bias)

    def weight(self) -> Tensor:
        """See Product."""
        return self._weight


class Turned(Library):
    """The same by a weight stored as (in, out): few rows are up to twice as fast, and MKL's paths are fewer."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight.t().contiguous().t(), bias)


class Packed:
    """oneDNN's product, by a weight in a layout of its own."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.shape = _shape(weight)
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """See Product."""
        is_vector = x.shape[:-1].numel() == 1 and x.dtype == torch.float32
        return _one_as_two(x, self._multiply) if is_vector else self._multiply(x)

    def weight(self) -> Tensor:
        """See Product."""
        return self._packed.to_dense()

    def _multiply(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self._packed, self._bias, "none", [], "")
        return out


class Doubled:
    """The library's product in float64."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.shape = _shape(weight)
        self._exact = Turned(weight.double(), None if bias is None else bias.double())

    def __call__(self, x: Tensor) -> Tensor:
        """See Product."""
        return self._exact(x.double()).float()

    def weight(self) -> Tensor:
        """See Product."""
        return self._exact.weight().float()


class Halved:
    """FBGEMM's product, by a weight in float16; `_exponent` tells whether that holds it exactly."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        exponent = _exponent(weight)
        assert exponent is not None
        self.shape = _shape(weight)
        self._scale = 2.0**-exponent
        # Scaled like the weight, since it is added before what both are scaled by is taken back: all of it exact.
        self._bias = None if bias is None else bias / self._scale
        with warnings.catch_warnings():
            # torch 2.13 warns that it will give these two up; without them the other layouts are left.
            warnings.simplefilter("ignore", UserWarning)
            self._packed = torch.fbgemm_pack_gemm_matrix_fp16(weight / self._scale)
            self(weight.new_zeros(1, weight.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        """See Product."""
        out: Tensor = torch.fbgemm_linear_fp16_weight_fp32_activation(x, self._packed, self._bias)
        return out if self._scale == 1 else out.mul_(self._scale)

    def weight(self) -> Tensor:
        """See Product; what is packed cannot be read, but its product with ones and zeros is exact."""
        packed: Tensor = torch.fbgemm_linear_fp16_weight_fp32_activation(torch.eye(self.shape[1]), self._packed, None)
        return packed.mul_(self._scale).t()


@runtime_checkable
class RepacksWeights(Protocol):
    """A module that lays its weights out for answering, once they are loaded."""

    def repack_weights(self) -> None:
        """Lay them out. They can no longer be trained."""


class Linear(nn.Linear):
    """A linear layer whose rows keep their bits.

    Attributes:
        product: Stands in place of the weight and bias once they are laid out.
    """

    __call__: Callable[..., Tensor]  # nn.Module says that a call may return anything

    def __init__(self, width_in: int, width_out: int, bias: bool = True, *, few_rows: bool = False) -> None:
        """Make a layer; see `product` for `few_rows`."""
        super().__init__(width_in, width_out, bias)
        self.product: Product | None = None
        self._few_rows = few_rows

    def repack_weights(self) -> None:
        """Lay the weight out for answering, unless it has been given away. It can no longer be trained."""
        if self.weight.numel():
            self.product = product(*self.given_away(), few_rows=self._few_rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of what was loaded: a head may have more rows than its model was built with."""
        return _shape(self.weight) if self.product is None else self.product.shape

    def plain_weight(self) -> Tensor:
        """Return the weight (out, in), laid out or not."""
        return self.weight if self.product is None else self.product.weight()

    def given_away(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias, and keep nothing of them."""
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        self.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.new_empty(0), requires_grad=False)
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        return linear(x, self.weight, self.bias) if self.product is None else self.product(x)


class Joined:
    """Linear layers that see the same rows: one product once weights are laid out, and one after the other before."""

    def __init__(self, *layers: Linear) -> None:
        self._layers = layers
        self._product: Product | None = None

    def repack_weights(self) -> None:
        """Lay all weights out as one, unless they have been given away; see RepacksWeights."""
        if not all(layer.weight.numel() for layer in self._layers):
            return
        weights, biases = zip(*(layer.given_away() for layer in self._layers), strict=True)
        bias = None if biases[0] is None else torch.cat(biases)
        self._product = product(torch.cat(weights), bias, few_rows=True)

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out), where out is what all layers give, side by side."""
        return torch.cat([layer(x) for layer in self._layers], dim=-1) if self._product is None else self._product(x)


_LAYOUTS: dict[str, Callable[[Tensor, Tensor | None], Product]] = {
    "halved": Halved,
    "library": Turned,
    "packed": Packed,
    "float64": Doubled,
}
# By shape, bias, whether float16 holds the weight, and threads: what a process has tried once.
_chosen_layouts: dict[tuple[tuple[int, int], bool, bool, int], str] = {}


def _layout_for(weight: Tensor, bias: Tensor | None, exponent: int | None) -> str:
    """Return the name of the layout for a weight's shape."""
    key = (_shape(weight), bias is not None, exponent is not None, torch.get_num_threads())
    if key not in _chosen_layouts:
        *names, last = _candidates(weight, exponent)
        kept = (name for name in names if _keeps_rows(_LAYOUTS[name](weight, bias)))
        _chosen_layouts[key] = next(kept, last)
    return _chosen_layouts[key]


def _candidates(weight: Tensor, exponent: int | None) -> list[str]:
    packed = ["packed"] if torch.backends.mkldnn.is_available() else []  # type: ignore[no-untyped-call]
    names = [*packed, "library"] if weight.numel() >= PACKED_NUMBERS else ["library", *packed]
    return [*names, "float64"] if exponent is None else ["halved", *names, "float64"]


def _exponent(weight: Tensor) -> int | None:
    """Return an exponent of two that makes a weight one that float16 holds exactly; None if there is none."""
    if "fbgemm" not in torch.backends.quantized.supported_engines or not hasattr(torch, "fbgemm_pack_gemm_matrix_fp16"):
        return None
    largest = int(weight.abs().max().frexp().exponent)  # all are below 2^largest
    exponents = (0, LARGEST_EXPONENT - largest)
    return next((one for one in exponents if abs(one) < 100 and _is_half(weight * 2.0**one)), None)


def _is_half(weight: Tensor) -> bool:
    return torch.equal(weight.half().float(), weight)


def _keeps_rows(multiply: Product) -> bool:
    """Try whether rows have the same bits in any number, at the front and at the back of what is multiplied."""
    many = [rows for rows in MANY_ROWS if rows * multiply.shape[0] * multiply.shape[1] <= TRIED_NUMBERS]
    x = torch.randn(max([ROWS, *many]), multiply.shape[1], generator=torch.Generator().manual_seed(0))
    together = multiply(x[:ROWS])
    parts = [part for rows in FEW_ROWS for part in (slice(rows), slice(ROWS - rows, None))]
    return all(torch.equal(multiply(x[:ROWS][part].clone()), together[part]) for part in parts) and all(
        torch.equal(multiply(x[:rows])[:ROWS], together) for rows in many
    )


def _one_as_two(x: Tensor, multiply: Callable[[Tensor], Tensor]) -> Tensor:
    row = x.reshape(1, -1)
    return multiply(torch.cat((row, row)))[:1].view(*x.shape[:-1], -1)


def _shape(weight: Tensor) -> tuple[int, int]:
    rows, columns = weight.shape
    return rows, columns
