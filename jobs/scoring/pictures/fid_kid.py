"""FID and KID: how far the features of generated pictures lie from those of real ones.

They know features, one row a picture, or for FID their saved moments. `features` reads these from a network that the
user supplies: any callable from a batch of pixels to one row of features a picture, with its weights and its
normalisation of pixels. Published numbers take the 2048 pooled features of the FID port of Inception (not
torchvision's), and both how pictures were resized and their file format move them, so report these with both counts.
Sources: M. Heusel et al. (arXiv 1706.08500) and mseitzer/pytorch-fid, fid_score.py; M. Bińkowski et al., "Demystifying
MMD GANs" (arXiv 1801.01401), with the kernel and subsets of clean-fid 0.1.35.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Pixels: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]
# Turns a batch of pixels, (B, side, side, 3) of 0 to 255, into B rows of features.
Network: TypeAlias = Callable[[Pixels], ArrayLike]

INCEPTION_SIDE = 299
ENOUGH_PICTURES = 10_000

_OFFSET = 1e-6


@dataclass(frozen=True)
class Gaussian:
    """A mean of D features and their covariance, D x D; saved ones do not say of how many pictures."""

    mean: Floats
    covariance: Floats
    pictures: int | None = None


class Moments:
    """Adds up features batch by batch in float64, so that a million pictures take no more memory than one batch.

    Kept are the count, the mean, and the products of deviations from it, joined by T. Chan's formula (1983): plain
    sums of squares would lose the digits that small variances around a large mean need.
    """

    def __init__(self) -> None:
        self.pictures = 0
        self._mean: Floats = np.zeros(0)
        self._products: Floats = np.zeros((0, 0))

    def add(self, features: ArrayLike) -> None:
        """Add a batch, one row a picture.

        Raises:
            ValueError: The rows are not of the width of those before, or a value is not finite.
        """
        batch = np.asarray(features, dtype=np.float64)
        width = len(self._mean) if self.pictures else batch.shape[-1]
        if batch.ndim != 2 or batch.shape[1] != width or not np.isfinite(batch).all():
            raise ValueError(f"found features of shape {batch.shape}, expected finite rows of {width}")
        if len(batch):
            mean = batch.mean(axis=0)
            self._join(len(batch), mean, (batch - mean).T @ (batch - mean))

    def join(self, other: "Moments") -> None:
        """Add what another has seen, e.g. another worker or the run before."""
        if other.pictures:
            self._join(other.pictures, other._mean, other._products)

    def gaussian(self) -> Gaussian:
        """Return the mean and the covariance of all pictures so far, with n - 1 below.

        Raises:
            ValueError: There are fewer than two pictures.
        """
        if self.pictures < 2:
            raise ValueError(f"found features of {self.pictures} pictures, expected two or more: one has no spread")
        return Gaussian(self._mean, self._products / (self.pictures - 1), self.pictures)

    def _join(self, pictures: int, mean: Floats, products: Floats) -> None:
        if not self.pictures:
            self.pictures, self._mean, self._products = pictures, mean, products
            return
        total = self.pictures + pictures
        shift = mean - self._mean
        self._products = self._products + products + np.outer(shift, shift) * (self.pictures * pictures / total)
        self._mean = self._mean + shift * (pictures / total)
        self.pictures = total


def gaussian(features: ArrayLike) -> Gaussian:
    """Return the mean and covariance of features that fit into memory, one row a picture."""
    return moments([features]).gaussian()


def read_gaussian(file: IO[bytes]) -> Gaussian:
    """Read the `mu` and `sigma` that pytorch-fid and others save as .npz. Pickled content is refused.

    Raises:
        ValueError: The file does not hold them, or not as plain numbers, or their shapes do not fit.
    """
    with np.load(file, allow_pickle=False) as arrays:
        if not {"mu", "sigma"} <= set(arrays.files):
            raise ValueError(f"found arrays {', '.join(arrays.files)}, expected mu and sigma")
        mean, covariance = np.asarray(arrays["mu"], np.float64), np.asarray(arrays["sigma"], np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"found mu of shape {mean.shape} and sigma of {covariance.shape}, expected (D,) and (D, D)")
    return Gaussian(mean, covariance)


def write_gaussian(file: IO[bytes], saved: Gaussian) -> None:
    """Save a mean and covariance as pytorch-fid does, for `read_gaussian`."""
    np.savez_compressed(file, mu=saved.mean, sigma=saved.covariance)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|² + tr(S1 + S2 - 2 sqrt(S1 S2)).

    The root's trace is the sum of the roots of the eigenvalues of S1 S2, which takes no matrix root; imaginary parts,
    which only rounding brings, are dropped. Where features never vary the reference's root may fail, and it then adds
    1e-6 to both diagonals, which these eigenvalues do not need: values of a few dozen pictures can differ by 0.1 %.

    Raises:
        ValueError: The widths differ or a value is not finite.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"found features of {len(first.mean)} and of {len(second.mean)} numbers, expected the same")
    if not all(np.isfinite(values).all() for side in (first, second) for values in (side.mean, side.covariance)):
        raise ValueError("found a mean or covariance that is not finite, expected numbers only")
    difference = first.mean - second.mean
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    return float(difference @ difference + spread - 2 * _trace_of_root(first.covariance, second.covariance))


def caveats(first: Gaussian, second: Gaussian) -> list[str]:
    """Return what makes an FID of these two hard to compare."""
    notes = []
    for name, side in (("first", first), ("second", second)):
        if side.pictures is None:
            continue
        if side.pictures < ENOUGH_PICTURES:
            notes.append(f"the {name} set has {side.pictures:,} pictures; FID is biased below {ENOUGH_PICTURES:,}")
        if side.pictures < len(side.mean):
            notes.append(f"the {name} set has fewer pictures than features ({side.pictures} < {len(side.mean)})")
    return notes


def _trace_of_root(first: Floats, second: Floats) -> float:
    try:
        return _sum_of_roots(first @ second)
    except np.linalg.LinAlgError:
        # No eigenvalues were found: what the reference does where it finds no root.
        offset = _OFFSET * np.eye(len(first))
        return _sum_of_roots((first + offset) @ (second + offset))


def _sum_of_roots(product: Floats) -> float:
    eigenvalues = np.linalg.eigvals(product)
    return float(np.sqrt(eigenvalues.astype(np.complex128)).real.sum())


class Kid(NamedTuple):
    """The mean over subsets, their standard deviation (None for one subset), and the pictures of a subset."""

    value: float
    deviation: float | None
    subset: int


def kid(first: ArrayLike, second: ArrayLike, *, seed: int, subsets: int = 100, largest_subset: int = 1000) -> Kid:
    """Return the kernel distance of two sets, averaged over random subsets of each.

    Sets that are of one size and fit into a subset are taken whole, once.

    Args:
        first: Features, one row a picture.
        second: As wide; the number of rows may differ.
        seed: Of the choice of subsets.
        subsets: How many.
        largest_subset: Rows drawn from each set, without replacement, or all rows of the smaller set.

    Raises:
        ValueError: The widths differ, or a set has fewer than two rows.
    """
    a, b = _checked(first), _checked(second)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"found features of {a.shape[1]} and of {b.shape[1]} numbers, expected the same")
    size = min(len(a), len(b), largest_subset)
    if len(a) == len(b) == size:
        return Kid(_squared_mmd(a, b), None, size)
    generator = np.random.default_rng(seed)
    values = [
        _squared_mmd(*(rows[generator.choice(len(rows), size, replace=False)] for rows in (a, b)))
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(values)), float(np.std(values)), size)


def _checked(rows: ArrayLike) -> Floats:
    features = np.asarray(rows, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(f"found features of shape {features.shape}, expected two finite rows or more")
    return features


def _squared_mmd(first: Floats, second: Floats) -> float:
    """Return the unbiased squared maximum mean discrepancy: no row is compared with itself."""
    size = len(first)
    within = _kernel(first, first), _kernel(second, second)
    own = sum(float(kernel.sum() - np.trace(kernel)) for kernel in within) / (size * (size - 1))
    return own - 2 * float(_kernel(first, second).mean())


def _kernel(first: Floats, second: Floats) -> Floats:
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def inception_pixels(picture: Image.Image) -> Pixels:
    """Resize an RGB picture for FID and KID: bicubic with antialiasing, neither rounded nor clipped after it.

    Source: clean-fid 0.1.35, resize.py, mode "clean". Other ways of resizing move FID by whole points.
    """
    sides = (INCEPTION_SIDE, INCEPTION_SIDE)
    channels = [
        Image.fromarray(np.asarray(channel, np.float32)).resize(sides, Image.Resampling.BICUBIC)
        for channel in picture.split()
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def features(pixels: Iterable[Pixels], network: Network, *, batch: int) -> Iterator[Floats]:
    """Yield the features of each batch of pictures, which are read as they are needed.

    Raises:
        ValueError: The network did not give one row a picture.
    """
    remaining = iter(pixels)
    while pictures := list(islice(remaining, batch)):
        rows = np.asarray(network(np.stack(pictures)), np.float64)
        if rows.ndim != 2 or len(rows) != len(pictures):
            raise ValueError(
                f"found features of shape {rows.shape}, expected one row for each of {len(pictures)} pictures"
            )
        yield rows


def moments(batches: Iterable[ArrayLike]) -> Moments:
    """Add up batches of features for FID; only one batch is in memory at a time."""
    total = Moments()
    for rows in batches:
        total.add(rows)
    return total
