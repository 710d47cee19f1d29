"""What the Frechet evaluators share: the private reference images and the score over trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..benchmark.core.config import Protocol
from ..benchmark.core.evidence import Images, Score
from ..benchmark.core.statistics import sample_std, student
from ._frechet import Moments, frechet_distance

if TYPE_CHECKING:
    from torch import Tensor

#: Features `float64 N D` of `uint8 N C H W`.
Extract = Callable[["Tensor"], NDArray[np.float64]]


def first_of_each(images: Images, labels: Tensor, count: int) -> tuple[Tensor, tuple[str, ...]]:
    """The first `count` images of each label, label by label, and a note where there are fewer.

    Args:
        images: labelled private images.
        labels: `int64 K`, the attacked labels.
        count: images wanted per label.

    Returns:
        `uint8 M C H W` and notes.
    """
    import torch

    assert images.labels is not None
    known = images.labels.cpu()
    parts = [(known == label).nonzero().flatten()[:count] for label in labels.cpu()]
    short = sum(len(part) < count for part in parts)
    notes = (f"{short} of {len(parts)} labels have fewer than {count} private images; all of those are used",)
    index = torch.cat(parts) if parts else known[:0]
    return images.pixels[index.to(images.pixels.device)], notes if short else ()


def over_trials(extract: Extract, real: Tensor, fake: Tensor, notes: tuple[str, ...] = ()) -> tuple[Score, list[float]]:
    """The mean over trials of the Frechet distance, each trial's reconstructions against the same private images.

    Args:
        extract: gives the features to compare in.
        real: `uint8 M C H W`.
        fake: `uint8 R S K C H W`.
        notes: passed on.

    Returns:
        The score, and the distance of each trial (empty where the score is undefined).
    """
    trials, each = len(fake), int(np.prod(fake.shape[1:3]))
    if not trials * each * len(real):
        return Score(value=None, reason="there are no reconstructions or no private images of their labels"), []
    reference, values = Moments.of(extract(real)), []
    for trial in fake:
        distance = frechet_distance(reference, Moments.of(extract(trial.flatten(0, 1))))
        if distance.value is None:
            return Score(value=None, n=trials * each, reason=distance.reason, notes=notes), []
        values.append(distance.value)
    interval = student(values, (0, np.inf))
    score = Score(
        value=float(np.mean(values)),
        n=trials * each,
        interval=interval,
        intervals={"trials": interval},
        spreads={"trials": sample_std(values)},
        notes=(*sizes(len(real), each, len(reference.mean)), *notes),
        flags=rank_deficient(len(real), each, len(reference.mean)),
    )
    return score, values


def sizes(real: int, fake: int, dims: int) -> tuple[str, ...]:
    """Notes on the numbers of images behind one distance."""
    note = f"each distance compares {real} private images with {fake} reconstructions in {dims} features"
    if min(real, fake) > dims:
        return (note,)
    return note, f"rank-deficient covariance: n = {min(real, fake)} <= d = {dims}"


def rank_deficient(real: int, fake: int, dims: int) -> dict[str, str]:
    """The flag of a distance between covariances of which one has rank below `dims`: n images give at most n - 1."""
    if min(real, fake) > dims:
        return {}
    images = f"{real} private images and {fake} reconstructions in {dims} features"
    return {"fid_rank_deficient": f"{images}: a covariance needs more than {dims} images, so the value is mostly bias"}


def without_labels(protocol: Protocol) -> str | None:
    """Why there is no distance per attacked label, in one sentence; `None` if there is."""
    if protocol.task == "classes":
        return None
    return f"the Frechet distance needs attacked class labels and {protocol.id} has attributes"
