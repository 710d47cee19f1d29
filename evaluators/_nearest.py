"""Comparison of class reconstructions with the nearest private training images of their class."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..benchmark.core.evidence import ClassReconstructions, Evidence, Images, Score
from ..benchmark.core.statistics import Interval, sample_std, student
from ..benchmark.networks.judges import Judges
from ._cosine import Values, unit
from ._pairs import unrelated
from ._reasons import NO_RECONSTRUCTIONS, not_finite


def score_nearest(
    evidence: Evidence,
    judges: Judges,
    embedder: str,
    compare: Callable[[Values, Values], Values],
    *,
    k: int,
    bounds: Interval,
    note: str,
) -> Score:
    """Score class reconstructions by their nearest private images; `chance` compares with another label's images.

    Args:
        evidence: of the cell, with class reconstructions.
        judges: compute the embeddings.
        embedder: name of the network whose embeddings are compared.
        compare: maps unit embeddings of reconstructions `R S D` and of private images `M D`, M at least 1, to `R S`.
        k: number of nearest images that `compare` uses.
        bounds: range of the mean.
        note: on the embedder.
    """
    found: ClassReconstructions = evidence.get(ClassReconstructions)
    shape, labels = tuple(found.pixels.shape[:3]), found.labels.cpu()
    if not int(np.prod(shape)):
        return Score(value=None, reason=NO_RECONSTRUCTIONS)
    embedded = judges.embeddings(embedder, found.pixels.flatten(0, 2))
    private = _private_embeddings(evidence.private("private_train"), labels, judges, embedder)
    for part in (embedded, *private):
        reason = not_finite(part, "embeddings")
        if reason:
            return Score(value=None, n=int(np.prod(shape)), reason=reason)
    grid, classes = unit(embedded).reshape(*shape, -1), [unit(part) for part in private]

    def compared(chosen: Iterable[int]) -> Values:
        missing = np.full(shape[:2], np.nan)
        rows = ((grid[:, :, i], classes[j]) for i, j in enumerate(chosen))
        return np.stack([compare(x, y) if len(y) else missing for x, y in rows], 2)

    other = unrelated(labels.numpy())
    average = sum(map(len, private)) / len(private)
    notes = (note, f"each reconstruction is compared with the nearest {k} of {average:.1f} private images on average")
    chance = None if other is None else compared(other)
    return _score_labels(compared(range(len(classes))), chance, bounds, notes)


def _private_embeddings(images: Images, labels: Tensor, judges: Judges, embedder: str) -> list[Tensor]:
    """Embeddings `M D` of the private images of each label; M may be 0."""
    assert images.labels is not None
    known = images.labels.cpu()
    chosen = torch.isin(known, labels).nonzero().flatten()
    if len(chosen) == 0:
        return [torch.zeros(0, 1)] * len(labels)
    embedded = judges.embeddings(embedder, images.pixels[chosen])
    return [embedded[known[chosen] == label] for label in labels]


def _score_labels(
    values: Values,
    chance: Values | None,
    bounds: Interval,
    notes: tuple[str, ...],
) -> Score:
    """Score of one value per reconstruction, with intervals over labels.

    Args:
        values: `R S K`, NaN where a label has no private image.
        chance: the same for another label; `None` where there is none.
        bounds: range of the mean.
        notes: first notes of the score.
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
        interval=student(by_label[defined], bounds),
        intervals={"trials": student(by_trial, bounds)},
        spreads={"classes": sample_std(by_label[defined]), "trials": sample_std(by_trial)},
        chance=None if chance is None or np.isnan(chance).all() else float(np.nanmean(chance)),
        per_class=per_class,
        notes=notes,
    )
