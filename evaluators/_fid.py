"""Base of the evaluators with a Frechet distance: private reference images and the score over trials."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Protocol
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Images, Score
from ..benchmark.core.statistics import sample_std, student
from ._frechet import Moments, frechet_distance
from ._reasons import needs_classes

#: Maps images `uint8 N C H W` to features `float64 N D`.
Extract = Callable[[Tensor], NDArray[np.float64]]


class FrechetEvaluator(Evaluator):
    """Base of the Frechet distances between private images and reconstructions of the attacked labels."""

    needs = ("ClassReconstructions",)

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for attribute tasks, which have no attacked labels."""
        return needs_classes("the Frechet distance", protocol)

    def compare_trials(self, evidence: Evidence, extract: Extract) -> tuple[Score, list[float]]:
        """Average over trials the distance of a trial's reconstructions to the first private images of each label.

        Args:
            evidence: of the cell.
            extract: computes the features to compare.

        Returns:
            The score, and the distance of each trial (empty where the score is undefined).
        """
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        real, notes = first_of_each(evidence.private("private_train"), found.labels, evidence.protocol.reference)
        trials, each = len(found.pixels), int(np.prod(found.pixels.shape[1:3]))
        if not trials * each * len(real):
            return Score(value=None, reason="there are no reconstructions or no private images of their labels"), []
        reference, values = Moments.of(extract(real)), []
        for trial in found.pixels:
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
            notes=(*size_notes(len(real), each, len(reference.mean)), *notes),
            flags=rank_flags(len(real), each, len(reference.mean)),
        )
        return score, values


def first_of_each(images: Images, labels: Tensor, count: int) -> tuple[Tensor, tuple[str, ...]]:
    """Select the first `count` images of each label, label by label, with a note where there are fewer.

    Args:
        images: labelled private images.
        labels: `int64 K`, the attacked labels.
        count: images per label.

    Returns:
        `uint8 M C H W` and notes.
    """
    assert images.labels is not None
    known = images.labels.cpu()
    parts = [(known == label).nonzero().flatten()[:count] for label in labels.cpu()]
    short = sum(len(part) < count for part in parts)
    notes = (f"{short} of {len(parts)} labels have fewer than {count} private images; all of those are used",)
    index = torch.cat(parts) if parts else known[:0]
    return images.pixels[index.to(images.pixels.device)], notes if short else ()


def size_notes(real: int, fake: int, dims: int) -> tuple[str, ...]:
    """Notes on the numbers of images behind one distance."""
    note = f"each distance compares {real} private images with {fake} reconstructions in {dims} features"
    if min(real, fake) > dims:
        return (note,)
    return note, f"rank-deficient covariance: n = {min(real, fake)} <= d = {dims}"


def rank_flags(real: int, fake: int, dims: int) -> dict[str, str]:
    """Flag of a distance with a rank-deficient covariance: n images give a rank of at most n - 1, below `dims`."""
    if min(real, fake) > dims:
        return {}
    images = f"{real} private images and {fake} reconstructions in {dims} features"
    return {"fid_rank_deficient": f"{images}: a covariance needs more than {dims} images, so the value is mostly bias"}
