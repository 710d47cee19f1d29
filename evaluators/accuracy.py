"""Test accuracy of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, Predictions, Score
from ..benchmark.core.statistics import wilson
from ._topk import not_finite, top_k

if TYPE_CHECKING:
    from ..benchmark.networks.judges import Judges


class Accuracy(Evaluator):
    """Share of private test images that the target classifies correctly; of attributes, the mean share over them.

    `accuracy = 1/N sum_i [argmax_k logits_ik = y_i]`; the interval is Wilson's, with n = N images, and `chance` is 1/K.

    Of attributes, `accuracy = 1/A sum_a 1/N sum_i [(logits_ia > 0) = y_ia]`. The decisions on one image belong
    together, so the interval is Wilson's with the effective number of images `N p (1 - p) / v`, p being the accuracy
    and v the variance over images of their share of right decisions: N for one attribute, and N where no two images
    differ. `chance` is the mean over attributes of the share of the commoner value in the test images, the best that a
    target gets that says the same of every image.

    Note:
        All test images count; BiDO's test loader drops the last incomplete batch (3,008 of 3,009 CelebA images,
        5,120 of 5,139 MNIST images).

    Note:
        The target is the one that is attacked; BiDO prints the best epoch as measured on the test images.

    Note:
        Equal logits score the expectation of a random order, not the lowest class index.
    """

    needs: ClassVar[tuple[str, ...]] = ("Predictions",)
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="accuracy",
            title="Accuracy",
            measures="utility",
            better="higher",
            unit="fraction",
            formula="share of private test images whose largest target logit is their label; of attributes, share of "
            "right decisions (logit > 0), mean over attributes",
            range="[0, 1]",
        ),
    )

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `accuracy`, with one value per class or attribute; a class without test images has `None`."""
        import torch

        predictions: Predictions = evidence.get(Predictions)
        attributes = predictions.labels.dtype == torch.bool
        return {"accuracy": (_attributes if attributes else _accuracy)(predictions)}


def _accuracy(predictions: Predictions) -> Score:
    n, classes = predictions.logits.shape
    reason = "there are no test images" if n == 0 else not_finite(predictions.logits)
    if reason:
        return Score(value=None, n=n, chance=1 / classes, reason=reason)
    hits, labels = top_k(predictions.logits, predictions.labels, 1), predictions.labels.cpu().numpy()
    by_class = (hits[labels == label] for label in range(classes))
    return Score(
        value=float(hits.mean()),
        n=n,
        interval=wilson(float(hits.sum()), n),
        chance=1 / classes,
        per_class=tuple(float(part.mean()) if part.size else None for part in by_class),
    )


def _attributes(predictions: Predictions) -> Score:
    n = len(predictions.labels)
    reason = "there are no test images" if n == 0 else not_finite(predictions.logits)
    if reason:
        return Score(value=None, n=n, reason=reason)
    truth = predictions.labels.cpu().numpy()
    right = (predictions.logits.cpu() > 0).numpy() == truth
    commoner = np.maximum(truth.mean(0), 1 - truth.mean(0))
    by_image = right.mean(1)
    value, variance = float(right.mean()), float(by_image.var())
    effective = n * value * (1 - value) / variance if np.ptp(by_image) > 0 else float(n)
    return Score(
        value=value,
        n=n,
        interval=wilson(value * effective, effective),
        chance=float(commoner.mean()),
        per_class=tuple(float(share) for share in right.mean(0)),
        notes=(f"mean over {truth.shape[1]} attributes; chance says the commoner value of the test images",),
    )
