"""Frechet distance between Gaussians fitted to two sets of features, from float64 moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter of features `N D`, the scatter as a factor: `factor^T factor = sum_i (x_i - m)(x_i - m)^T`.

    The factor has at most 2 D rows for any N. It is never squared, so a covariance of rank below D keeps its exact
    rank.

    Args:
        n: number of features N.
        mean: `D`.
        factor: `r D`.

    Example:
        >>> rows = np.array([[0.0, 1.0], [2.0, 5.0], [4.0, 0.0]])
        >>> both = Moments.of(rows[:2]).update(rows[2:])
        >>> both.n, both.mean.tolist(), bool(np.allclose(both.covariance(), np.cov(rows.T)))
        (3, [2.0, 2.0], True)
    """

    n: int
    mean: Array
    factor: Array

    @classmethod
    def of(cls, rows: Array) -> Moments:
        """Compute the moments of features `N D`, N at least 1."""
        rows = np.asarray(rows, dtype=np.float64)
        assert rows.ndim == 2 and len(rows)
        mean = rows.mean(0)
        return cls(len(rows), mean, _compress(rows - mean))

    def update(self, rows: Array) -> Moments:
        """Add the features `N D`."""
        return self.merge(Moments.of(rows)) if len(rows) else self

    def merge(self, other: Moments) -> Moments:
        """Combine the moments of two sets (the pairwise update of Chan, Golub and LeVeque, on factors)."""
        n, shift = self.n + other.n, other.mean - self.mean
        between = np.sqrt(self.n * other.n / n) * shift
        factor = np.concatenate([self.factor, other.factor, between[None]])
        return Moments(n, self.mean + shift * (other.n / n), _compress(factor))

    def covariance(self) -> Array:
        """Covariance `D D`, with n - 1 in the denominator."""
        product: Array = self.factor.T @ self.factor / (self.n - 1)
        return product


def _compress(factor: Array) -> Array:
    """Reduce a factor to at most 2 D rows with the same scatter."""
    rows, columns = factor.shape
    if rows <= 2 * columns or not np.isfinite(factor).all():
        return factor
    return np.asarray(np.linalg.qr(factor, mode="r"), dtype=np.float64)


class Distance(NamedTuple):
    """Frechet distance, or the reason why it is undefined; exactly one is `None`."""

    value: float | None
    reason: str | None


def frechet_distance(real: Moments, fake: Moments) -> Distance:
    """Frechet distance of the two Gaussians.

    `d = |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^{1/2}`. With `S = F^T F / (n - 1)` the eigenvalues of
    `S1^{1/2} S2 S1^{1/2}` are the squared singular values of `F1 F2^T` over `(n1 - 1)(n2 - 1)`, so the last trace is
    the sum of those singular values over `sqrt((n1 - 1)(n2 - 1))`.

    References:
        D. C. Dowson, B. V. Landau, "The Frechet distance between multivariate normal distributions", JMVA 12, 1982.
        M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
        2017, https://arxiv.org/abs/1706.08500.

    Args:
        real: moments of the reference images.
        fake: moments of the reconstructions, of the same D.

    Returns:
        The distance, at least 0, or the reason why it is undefined; a failure never gives 0.

    Note:
        pytorch-fid uses SciPy's square root of the matrix product, which loses digits when a covariance has rank below
        D, and adds 1e-6 to both diagonals when it fails; singular values need neither.
    """
    assert real.mean.shape == fake.mean.shape
    if min(real.n, fake.n) < 2:
        return Distance(None, f"a covariance needs 2 images or more, got {real.n} private and {fake.n} reconstructed")
    if not all(np.isfinite(part).all() for part in (real.mean, real.factor, fake.mean, fake.factor)):
        return Distance(None, "some features are not finite")
    try:
        value = _distance(real, fake)
    except np.linalg.LinAlgError as error:
        return Distance(None, f"the singular values of the covariances cannot be computed: {error}")
    return Distance(value, None) if np.isfinite(value) else Distance(None, "the features are too large for float64")


def _distance(real: Moments, fake: Moments) -> float:
    first, second = (part.factor / np.sqrt(part.n - 1) for part in (real, fake))
    with np.errstate(over="ignore", invalid="ignore"):
        shift = float(np.square(real.mean - fake.mean).sum())
        traces = float(np.square(first).sum() + np.square(second).sum())
        cross = first @ second.T
    if not np.isfinite([shift, traces]).all() or not np.isfinite(cross).all():
        return float("nan")
    root = float(np.linalg.svd(cross, compute_uv=False).sum())
    assert traces - 2 * root >= -1e-9 * traces
    return shift + max(0.0, traces - 2 * root)
