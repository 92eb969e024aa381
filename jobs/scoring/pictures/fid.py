"""FID: how far the features of made pictures lie from those of real ones, as two normal distributions.

It knows features, one row a picture, or their saved moments; published numbers take the 2048 pooled features of the
FID port of Inception (not torchvision's), and both how pictures were resized and their file format move them, so
report these with both counts. Source: M. Heusel et al. (arXiv 1706.08500) and mseitzer/pytorch-fid, fid_score.py.
"""

from dataclasses import dataclass
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers: TypeAlias = NDArray[np.float64]

ENOUGH_PICTURES = 10_000

_OFFSET = 1e-6


@dataclass(frozen=True)
class Gaussian:
    """A mean of D features and their covariance, D x D; saved ones do not say of how many pictures."""

    mean: Numbers
    covariance: Numbers
    pictures: int | None = None


class Moments:
    """Adds up features batch by batch in float64, so that a million pictures take no more memory than one batch.

    Kept are the count, the mean, and the products of deviations from it, joined by T. Chan's formula (1983): plain
    sums of squares would lose the digits that small variances around a large mean need.
    """

    def __init__(self) -> None:
        self.pictures = 0
        self._mean: Numbers = np.zeros(0)
        self._products: Numbers = np.zeros((0, 0))

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

    def _join(self, pictures: int, mean: Numbers, products: Numbers) -> None:
        if not self.pictures:
            self.pictures, self._mean, self._products = pictures, mean, products
            return
        together = self.pictures + pictures
        apart = mean - self._mean
        self._products = self._products + products + np.outer(apart, apart) * (self.pictures * pictures / together)
        self._mean = self._mean + apart * (pictures / together)
        self.pictures = together


def gaussian(features: ArrayLike) -> Gaussian:
    """Return the mean and covariance of features that fit into memory, one row a picture."""
    moments = Moments()
    moments.add(features)
    return moments.gaussian()


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


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Return |m1 - m2|² + tr(S1 + S2 - 2 sqrt(S1 S2)).

    The root's trace is the sum of the roots of the eigenvalues of S1 S2, which takes no matrix root; imaginary parts,
    which only rounding brings, are dropped. Where features never vary the reference's root may fail, and it then adds
    1e-6 to both diagonals, which these eigenvalues do not need: values of a few dozen pictures can differ by 0.1 %.

    Raises:
        ValueError: The widths differ or a value is not finite.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"found features of {len(one.mean)} and of {len(other.mean)} numbers, expected the same")
    if not all(np.isfinite(values).all() for side in (one, other) for values in (side.mean, side.covariance)):
        raise ValueError("found a mean or covariance that is not finite, expected numbers only")
    apart = one.mean - other.mean
    spread = np.trace(one.covariance) + np.trace(other.covariance)
    return float(apart @ apart + spread - 2 * _trace_of_root(one.covariance, other.covariance))


def caveats(one: Gaussian, other: Gaussian) -> list[str]:
    """Say what makes an FID of these two hard to compare."""
    found = []
    for name, side in (("first", one), ("second", other)):
        if side.pictures is None:
            continue
        if side.pictures < ENOUGH_PICTURES:
            found.append(f"the {name} set has {side.pictures:,} pictures; FID is biased below {ENOUGH_PICTURES:,}")
        if side.pictures < len(side.mean):
            found.append(f"the {name} set has fewer pictures than features ({side.pictures} < {len(side.mean)})")
    return found


def _trace_of_root(one: Numbers, other: Numbers) -> float:
    try:
        return _sum_of_roots(one @ other)
    except np.linalg.LinAlgError:
        # No eigenvalues were found: what the reference does where it finds no root.
        offset = _OFFSET * np.eye(len(one))
        return _sum_of_roots((one + offset) @ (other + offset))


def _sum_of_roots(product: Numbers) -> float:
    eigenvalues = np.linalg.eigvals(product)
    return float(np.sqrt(eigenvalues.astype(np.complex128)).real.sum())
