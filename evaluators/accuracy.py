"""Test accuracy of the target."""

import numpy as np
import torch

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, Predictions, Score
from ..benchmark.core.statistics import wilson
from ..benchmark.networks.judges import Judges
from ._reasons import NO_TEST_IMAGES, not_finite
from ._topk import top_k


class Accuracy(Evaluator):
    """Accuracy of the target on private test images.

    For classes, `accuracy = 1/N sum_i [argmax_k logits_ik = y_i]`; the interval is Wilson's with n = N images, and
    `chance` is 1/K.

    For attributes, `accuracy = 1/A sum_a 1/N sum_i [(logits_ia > 0) = y_ia]`. The decisions on one image depend on each
    other, so the interval is Wilson's with the effective number of images `N p (1 - p) / v`, where p is the accuracy
    and v the variance over images of their share of correct decisions: N for one attribute, and N where all images have
    the same share. `chance` is the mean over attributes of the share of the more frequent value in the test images, the
    best accuracy of a target with the same output for every image.

    Note:
        All test images count; BiDO's test loader drops the last incomplete batch (3,008 of 3,009 CelebA images,
        5,120 of 5,139 MNIST images).

    Note:
        The score is that of the attacked target; BiDO prints the best epoch as measured on the test images.

    Note:
        Equal logits score the expectation of a random order, not the lowest class index.
    """

    needs = ("Predictions",)
    scores = (
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
        """Compute `accuracy`, with one value per class or attribute; `None` for a class without test images."""
        predictions: Predictions = evidence.get(Predictions)
        attributes = predictions.labels.dtype == torch.bool
        return {"accuracy": (_attributes if attributes else _accuracy)(predictions)}


def _accuracy(predictions: Predictions) -> Score:
    n, classes = predictions.logits.shape
    reason = NO_TEST_IMAGES if n == 0 else not_finite(predictions.logits, "logits")
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
    reason = NO_TEST_IMAGES if n == 0 else not_finite(predictions.logits, "logits")
    if reason:
        return Score(value=None, n=n, reason=reason)
    truth = predictions.labels.cpu().numpy()
    correct = (predictions.logits.cpu() > 0).numpy() == truth
    majority = np.maximum(truth.mean(0), 1 - truth.mean(0))
    by_image = correct.mean(1)
    value, variance = float(correct.mean()), float(by_image.var())
    effective = n * value * (1 - value) / variance if np.ptp(by_image) > 0 else float(n)
    return Score(
        value=value,
        n=n,
        interval=wilson(value * effective, effective),
        chance=float(majority.mean()),
        per_class=tuple(float(share) for share in correct.mean(0)),
        notes=(f"mean over {truth.shape[1]} attributes; chance is the share of the more frequent value",),
    )
