"""Test accuracy of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..benchmark.contracts import Definition, Evaluator, Protocol
from ..benchmark.evidence import Evidence, Predictions, Score
from ..benchmark.statistics import wilson
from ._topk import not_finite, top_k

if TYPE_CHECKING:
    from ..benchmark.judges import Judges


class Accuracy(Evaluator):
    """Share of private test images that the target classifies correctly.

    `accuracy = 1/N sum_i [argmax_k logits_ik = y_i]`; the interval is Wilson's, with n = N images.

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
            formula="share of private test images whose largest target logit is their label",
            range="[0, 1]",
        ),
    )

    def unavailable(self, protocol: Protocol) -> str | None:
        """Attribute tasks have no class to be right about."""
        if protocol.task == "classes":
            return None
        return f"accuracy needs class labels and {protocol.id} has attributes"

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `accuracy`, with one value per class; a class without test images has `None`."""
        return {"accuracy": _accuracy(evidence.get(Predictions))}


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
