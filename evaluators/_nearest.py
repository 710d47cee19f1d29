"""What evaluators share that compare a reconstruction with the nearest private training images of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..benchmark.core.evidence import Images, Score
from ..benchmark.core.statistics import Interval, sample_std, student, two_level

if TYPE_CHECKING:
    from torch import Tensor

    from ..benchmark.networks.judges import Judges

Values = NDArray[np.float64]


def private_embeddings(images: Images, labels: Tensor, judges: Judges, embedder: str) -> list[Tensor]:
    """Embeddings `M D` of the private images of each label; M may be 0."""
    import torch

    assert images.labels is not None
    known = images.labels.cpu()
    chosen = torch.isin(known, labels).nonzero().flatten()
    if len(chosen) == 0:
        return [torch.zeros(0, 1)] * len(labels)
    embedded = judges.embeddings(embedder, images.pixels[chosen])
    return [embedded[known[chosen] == label] for label in labels]


def over_labels(
    values: Values,
    chance: Values | None,
    bounds: Interval,
    resamples: int,
    seed: int,
    notes: tuple[str, ...],
) -> Score:
    """The mean of one value a reconstruction, with intervals over labels.

    Args:
        values: `R S K`, NaN where a label has no private image.
        chance: the same for another label; `None` where there is none.
        bounds: the range of the mean.
        resamples: of the bootstrap over labels and, within a label, over its draws.
        seed: of the bootstrap.
        notes: passed on, before those made here.
    """
    draws = values.reshape(-1, values.shape[2]).T
    by_label = draws.mean(1)
    defined = ~np.isnan(by_label)
    lost = int((~defined).sum())
    per_class = tuple(None if np.isnan(value) else float(value) for value in by_label)
    if lost == len(by_label):
        reason = "no attacked label has a private image with an embedding"
        return Score(value=None, n=0, per_class=per_class, reason=reason, notes=notes)
    if lost:
        notes = (*notes, f"{lost} of {len(by_label)} labels have no private image and are left out")
    if lost == len(by_label) - 1:
        notes = (*notes, "one label was compared, so there is no interval over labels")
    known = values[:, :, defined]
    by_trial = known.mean((1, 2))
    return Score(
        value=float(known.mean()),
        n=known.size,
        interval=two_level(draws[defined], resamples, seed),
        intervals={"classes": student(by_label[defined], bounds), "trials": student(by_trial, bounds)},
        spreads={"classes": sample_std(by_label[defined]), "trials": sample_std(by_trial)},
        chance=None if chance is None or np.isnan(chance).all() else float(np.nanmean(chance)),
        per_class=per_class,
        notes=notes,
    )
