"""Scatter of latents within and between identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Encodings, Evidence, Score
from ..benchmark.core.statistics import Interval, jackknife
from ..benchmark.networks.judges import Judges
from ._cosine import Values
from ._reasons import not_finite

#: Values of Z converted to float64 at once (32 MiB).
_BLOCK = 1 << 22
_NAMES = ("lda", "lda_within", "lda_between")


class LDA(Evaluator):
    """Scatter of latents between and within identities.

    For the flattened latents z_i of N observed images of G identities, n_g of identity g with mean m_g, and their
    overall mean m:
    `S_w = 1/N sum_i |z_i - m_g(i)|^2`, `S_b = 1/N sum_g n_g |m_g - m|^2`, `lda = S_b / S_w`,
    the traces of the within-class and between-class scatter matrices of linear discriminant analysis; S_w + S_b is the
    total variance. Identities are `identities` where the data has them, else the class labels.

    Intervals are Student-t from the jackknife over identities. `chance` is the expectation over random assignments of
    identities to the same latents: `(N - G) / (N - 1)` of the total variance within, `(G - 1) / (N - 1)` of it between,
    and the quotient of the two, `(G - 1) / (N - G)`, which is far from 0 where identities have few images.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020,
        Table 3. K. Fukunaga, "Introduction to Statistical Pattern Recognition", 2nd edition, 1990, section 10.2.

    Note:
        The paper gives no formula and no normalisation for its within-class and between-class variances. So S_w and S_b
        are comparable between defenses at one layer of one network here, but not with its Table 3.

    Note:
        The FC column of the paper's Table 3 prints S_w / S_b (2541.02 / 983.14 = 2.58 and 1061.99 / 710.93 = 1.49), its
        other columns S_b / S_w; here it is always S_b / S_w, which for FC would be 0.39 and 0.67.

    Note:
        An identity with one observed image is left out and counted in a note: it has no scatter of its own and would
        only add to S_b.
    """

    needs = ("Encodings",)
    scores = (
        Definition(
            name="lda",
            title="LDA score",
            measures="leakage",
            better="lower",
            unit="ratio",
            formula="S_b / S_w of the latents of private test images over identities (class labels where the data has "
            "no identities), those with two images or more",
            range="[0, inf)",
        ),
        Definition(
            name="lda_within",
            title="Within Var",
            measures="leakage",
            better="higher",
            unit="distance",
            formula="S_w = 1/N sum_i |z_i - m_g(i)|^2, mean squared distance of a latent from the mean of its identity",
            range="[0, inf)",
        ),
        Definition(
            name="lda_between",
            title="Between Var",
            measures="leakage",
            better="lower",
            unit="distance",
            formula="S_b = 1/N sum_g n_g |m_g - m|^2, mean squared distance of an identity's mean latent from the "
            "overall mean, weighted by its images",
            range="[0, inf)",
        ),
    )

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `lda`, `lda_within` and `lda_between`."""
        found: Encodings = evidence.get(Encodings)
        images = evidence.private("private_test").select(found.items.cpu())
        owners = images.labels if images.identities is None else images.identities
        if owners is None:
            return _undefined(len(images), f"{evidence.protocol.id} has neither identities nor labels")
        what = "classes" if images.identities is None else "identities"
        z = found.z.cpu().flatten(1) if len(images) else found.z.cpu().reshape(0, 1)
        reason = not_finite(z, "latents")
        if reason:
            return _undefined(len(images), reason)
        groups, counts = np.unique(owners.cpu().numpy(), return_counts=True)
        kept = groups[counts > 1]
        single = len(groups) - len(kept)
        notes = [f"{single} of {len(groups)} {what} have one image and are left out"] if single else []
        if what == "classes":
            notes.append("the data has no identities, so the score is over classes, which targets learn to separate")
        if len(kept) < 2:
            usable = f"{len(kept)} of {len(groups)} {what} have two or more images"
            return _undefined(len(images), f"scatter needs two {what} with two images each; {usable}", tuple(notes))
        rows = [np.flatnonzero(owners.cpu().numpy() == group) for group in kept]
        return _score_scatter(Scatter.of(z, rows), what, tuple(notes))


@dataclass(frozen=True)
class Scatter:
    """Sums of squares of each group.

    Args:
        sizes: `float64 G`, images n_g.
        within: `float64 G`, sum over the group of `|z_i - m_g|^2`.
        offset: `float64 G`, `|m_g - m|^2`.
    """

    sizes: Values
    within: Values
    offset: Values

    @classmethod
    def of(cls, z: Tensor, rows: list[NDArray[np.int64]]) -> Scatter:
        """Compute the scatter of latents `N D` in disjoint groups of rows, one block of columns in float64 at a time.

        The first latent, of the group or of all, is subtracted first, so the scatter of equal latents is exactly 0.
        """
        sizes = np.array([len(part) for part in rows], dtype=np.float64)
        order, starts = np.concatenate(rows), np.cumsum([0, *map(len, rows[:-1])])
        first = np.repeat(starts, [len(part) for part in rows])
        within, offset = np.zeros(len(rows)), np.zeros(len(rows))
        step = max(1, _BLOCK // len(order))
        for begin in range(0, z.shape[1], step):
            block = z[:, begin : begin + step].double().numpy()[order]
            moved = block - block[first]
            means = np.add.reduceat(moved, starts) / sizes[:, None]
            centres = block[starts] - block[0] + means
            moved -= np.repeat(means, sizes.astype(np.int64), axis=0)
            within += np.add.reduceat(np.square(moved).sum(1), starts)
            offset += np.square(centres - sizes @ centres / sizes.sum()).sum(1)
        return cls(sizes, within, offset)

    def variances(self) -> tuple[float, float]:
        """Compute `S_w` and `S_b`."""
        n = self.sizes.sum()
        return float(self.within.sum() / n), float(self.sizes @ self.offset / n)

    def left_out(self) -> tuple[Values, Values]:
        """Compute `S_w` and `S_b` without one group at a time, `float64 G` each.

        Without g the overall mean moves by `n_g |m_g - m| / (N - n_g)`.
        """
        n, rest = self.sizes.sum(), self.sizes.sum() - self.sizes
        between = self.sizes @ self.offset - self.sizes * self.offset - self.sizes**2 * self.offset / rest
        assert n > 0
        return (self.within.sum() - self.within) / rest, np.maximum(between, 0) / rest


def _score_scatter(scatter: Scatter, what: str, notes: tuple[str, ...]) -> dict[str, Score]:
    n, groups = int(scatter.sizes.sum()), len(scatter.sizes)
    within, between = scatter.variances()
    left = scatter.left_out()
    notes = (*notes, f"{groups} {what} with {n} images; the interval treats the {what} as independent")
    if groups == 2:
        notes = (*notes, f"two {what} are too few for an interval")
    bounds, free, total = (0.0, np.inf), (n - groups, groups - 1), within + between
    scores = {
        name: Score(
            value=value, n=n, interval=jackknife(value, values, bounds), chance=total * share / (n - 1), notes=notes
        )
        for name, value, values, share in zip(_NAMES[1:], (within, between), left, free, strict=True)
    }
    chance = free[1] / free[0]
    if within == 0:
        reason = f"S_w is 0: within each of the {what} all latents are equal"
        ratio = Score(value=None, n=n, chance=chance, reason=reason, notes=notes)
    else:
        interval: Interval | None = jackknife(between / within, left[1] / left[0], bounds) if left[0].all() else None
        ratio = Score(value=between / within, n=n, interval=interval, chance=chance, notes=notes)
    return {"lda": ratio, **scores}


def _undefined(n: int, reason: str, notes: tuple[str, ...] = ()) -> dict[str, Score]:
    return {name: Score(value=None, n=n, reason=reason, notes=notes) for name in _NAMES}
