"""Matthews correlation coefficient of the target's decisions."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, setting
from ..benchmark.core.evidence import Evidence, Predictions, Score
from ..benchmark.core.statistics import Interval, percentile
from ..benchmark.networks.judges import Judges
from ._cosine import Values
from ._reasons import NO_TEST_IMAGES, not_finite

#: Resampled images held in memory at once (16 MiB).
_BLOCK = 1 << 22


class MCC(Evaluator):
    """Matthews correlation coefficient (MCC) of the target.

    The score compares the target's decisions on private test images with the labels. For one attribute,
    `MCC = (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN))` with the decision `logit > 0`; the score is the
    mean over attributes. For K classes, with the decision `argmax_k logit_k`, c correct decisions among s, and t_k
    images and p_k decisions of class k:
    `MCC = (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2)(s^2 - sum_k t_k^2))`, which agrees for K = 2.

    A target that gives the same answer for every image counts 0: it has no correlation with the truth. Only where the
    truth is the same for every image is MCC undefined, because no target could show anything there.

    The interval is a percentile bootstrap over images, which keeps the attributes of an image together. The same rules
    hold in every resample.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020.
        B. W. Matthews, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme",
        Biochimica et Biophysica Acta 405, 1975. J. Gorodkin, "Comparing two K-category assignments by a K-category
        correlation coefficient", Computational Biology and Chemistry 28, 2004.

    Note:
        Where the decision or the truth is the same for every image, the formula is 0 / 0. scikit-learn returns 0 for
        both, and so does the paper for decisions, judging by its .000 at lambda_2 = 10. Here an attribute whose truth
        is the same for every image is `None`, left out of the mean and counted in a note. Leaving constant decisions
        out too would let the mean rise as a target loses attributes.

    Note:
        Of classes with equal logits the lowest index is the decision, and an attribute's logit of 0 means no.
        `accuracy` scores ties of classes by their expectation.

    Note:
        Test images of one person are resampled as if they were independent; `n` is the number of images.

    Note:
        In 300 simulations each, with 939 images, the interval held the expected score of 40 attributes in 94 %, with 10
        of them constant in 94 %, and with 39 constant in 93 %. An answer so rare that few of the images show it is more
        often missed: with 10 attributes said of one image in a thousand it held in 82 %, and else lay below.
    """

    version = 2
    needs = ("Predictions",)
    scores = (
        Definition(
            name="mcc",
            title="MCC",
            measures="utility",
            better="higher",
            unit="similarity",
            formula="(TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)) of the target's decisions on private "
            "test images, 0 where the decision is the same for every image, mean over the attributes whose truth "
            "varies; of classes, Gorodkin's correlation coefficient of the K x K confusion matrix",
            range="[-1, 1]",
        ),
    )
    resamples: int = setting(1000, "bootstrap resamples of the interval", ge=100, le=1_000_000)
    seed: int = setting(0, "seed of the bootstrap", ge=0)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `mcc`; for attributes with one value each, `None` where the truth is constant."""
        found: Predictions = evidence.get(Predictions)
        n = len(found.labels)
        reason = NO_TEST_IMAGES if n == 0 else not_finite(found.logits, "logits")
        if reason:
            return {"mcc": Score(value=None, n=n, chance=0.0, reason=reason)}
        logits, truth = found.logits.cpu(), found.labels.cpu().numpy()
        if found.labels.dtype == torch.bool:
            return {"mcc": self._attributes((logits > 0).numpy(), truth)}
        return {"mcc": self._classes(logits.argmax(1).numpy(), truth, logits.shape[1])}

    def _attributes(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Score:
        """Score of attributes, predicted and true, both `bool N A`."""
        n, attributes = truth.shape
        table = np.hstack([truth & predicted, predicted, truth])
        values = binary_mcc(table.sum(0, dtype=np.float64), n)
        defined = np.isfinite(values)
        per_class = tuple(float(value) if np.isfinite(value) else None for value in values)
        if not defined.any():
            reason = f"the MCC of all {attributes} attributes is undefined: each has one value in all labels"
            return Score(value=None, n=n, chance=0.0, per_class=per_class, reason=reason)
        means = [_mean(binary_mcc(counts, n)) for counts in _resampled(table, self.resamples, self.seed)]
        interval = percentile(np.concatenate(means))
        return _score(float(values[defined].mean()), n, interval, per_class, _constant_notes(predicted, defined))

    def _classes(self, predicted: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> Score:
        """Score of classes, predicted and true, both `int64 N`."""
        n = len(truth)
        value = float(class_mcc(predicted[None], truth[None], classes)[0])
        if not np.isfinite(value):
            return Score(value=None, n=n, chance=0.0, reason="the MCC is undefined: all labels are equal")
        generator = np.random.Generator(np.random.PCG64(self.seed))
        step, values = max(1, _BLOCK // max(n, classes)), []
        for start in range(0, self.resamples, step):
            rows = generator.integers(n, size=(min(step, self.resamples - start), n))
            values.append(class_mcc(predicted[rows], truth[rows], classes))
        resampled = np.concatenate(values)
        notes = ("the target predicts one class for every image, which counts as 0",) if np.ptp(predicted) == 0 else ()
        return _score(value, n, percentile(resampled[np.isfinite(resampled)]), None, notes)


def binary_mcc(counts: NDArray[np.float64] | NDArray[np.float32], n: int) -> Values:
    """MCC of attributes.

    Args:
        counts: `... 3A`: true positives of every attribute, then positive predictions, then positive labels.
        n: number of images.

    Returns:
        `float64 ... A`, 0 where the predictions are constant, NaN where the labels are.
    """
    both, predicted, truth = np.split(np.asarray(counts, dtype=np.float64), 3, axis=-1)
    return _ratio(n * both - predicted * truth, predicted * (n - predicted), truth * (n - truth))


def class_mcc(predicted: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> Values:
    """Gorodkin's coefficient of each row.

    Args:
        predicted: `B N`, in [0, K).
        truth: `B N`, in [0, K).
        classes: K.

    Returns:
        `float64 B`, 0 where the predictions are constant, NaN where the labels are.
    """
    rows, n = truth.shape
    offset = classes * np.arange(rows)[:, None]
    p, t = (
        np.bincount((x + offset).ravel(), minlength=rows * classes).reshape(rows, classes).astype(np.float64)
        for x in (predicted, truth)
    )
    correct = (predicted == truth).sum(1)
    return _ratio(n * correct - (p * t).sum(1), n**2 - (p * p).sum(1), n**2 - (t * t).sum(1))


def _ratio(covariance: Values, predicted: Values, truth: Values) -> Values:
    """Divide a covariance by the root of two variances; without variance of the truth it is NaN, else 0."""
    scale = np.sqrt(predicted * truth)
    empty = np.where(truth > 0, 0.0, np.nan)
    return np.clip(np.divide(covariance, scale, out=empty, where=scale > 0), -1, 1)


def _resampled(table: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield column sums of resampled rows, `B columns` at a time; sums of ones are exact in float32 below 2^24."""
    n = len(table)
    assert n < 1 << 24
    ones, generator = table.astype(np.float32), np.random.Generator(np.random.PCG64(seed))
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        rows = generator.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        yield np.bincount(rows.ravel(), minlength=count * n).reshape(count, n).astype(np.float32) @ ones


def _mean(values: Values) -> Values:
    """Mean of the defined values of each row; rows without one are dropped."""
    defined = np.isfinite(values)
    rows = defined.any(1)
    means: Values = np.where(defined, values, 0)[rows].sum(1) / defined[rows].sum(1)
    return means


def _constant_notes(predicted: NDArray[np.bool_], defined: NDArray[np.bool_]) -> tuple[str, ...]:
    """Notes on attributes of which all predictions, or all labels, are equal."""
    attributes, notes = len(defined), []
    lost = int(((predicted == predicted[0]).all(0) & defined).sum())
    if lost:
        notes.append(f"the target gives every image the same answer for {lost} of {attributes} attributes: 0 each")
    left_out = attributes - int(defined.sum())
    if left_out:
        notes.append(f"{left_out} of {attributes} attributes are left out: all labels are equal")
    return tuple(notes)


def _score(
    value: float,
    n: int,
    interval: Interval | None,
    per_class: tuple[float | None, ...] | None,
    notes: tuple[str, ...],
) -> Score:
    if interval is None:
        notes = (*notes, "no two resamples differ, so there is no interval")
    return Score(value=value, n=n, interval=interval, chance=0.0, per_class=per_class, notes=notes)
