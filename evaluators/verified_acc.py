"""Verified accuracy: attack accuracy that two judges confirm, with their false-positive rates."""

from typing import Literal

import numpy as np
from torch import Tensor

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Negatives, Score
from ..benchmark.core.statistics import rate_over_labels
from ..benchmark.networks.judges import Judge, Judges
from ._cosine import Values
from ._hit_rate import hit_rate
from ._reasons import NO_RECONSTRUCTIONS, needs_classes, not_finite

_RATES = ("fpr_first", "fpr_second", "fpr_both")


def _definition(
    name: str, title: str, formula: str, measures: Literal["leakage", "quality"], better: Literal["higher", "lower"]
) -> Definition:
    return Definition(
        name=name, title=title, measures=measures, better=better, unit="fraction", formula=formula, range="[0, 1]"
    )


class VerifiedAcc(Evaluator):
    """Attack accuracy that two judges confirm.

    With the judges (evaluation classifiers) a and b, of different architecture and training, over R trials, S draws and
    K attacked labels:
    `verified_acc = 1/(R S K) sum_rsk [argmax_j a(x_rsk)_j = y_k] [argmax_j b(x_rsk)_j = y_k]`,
    `judge_agreement = 1/(R S K) sum_rsk [argmax_j a(x_rsk)_j = argmax_j b(x_rsk)_j]`.

    The false-positive rates are over the N calibrated negatives (public images pushed towards a label with the target's
    gradient) that fool the target: `fpr_first = 1/N sum_i [argmax_j a(x_i)_j = y_i]`, `fpr_second` the same with b, and
    `fpr_both = 1/N sum_i [argmax_j a(x_i)_j = y_i] [argmax_j b(x_i)_j = y_i]`. Some attacks, such as those with too
    many degrees of freedom, return images that fool the target and show nothing of the class; the rates tell how easily
    such a pair of judges is fooled.

    `verified_acc` is never above `attack_acc`. Real images of the class do not score 1 either, but about the share that
    both judges classify correctly; the notes give the accuracy of each judge.

    Intervals and spreads of the first two scores are those of `attack_acc`. The intervals of the rates are over labels
    too, since negatives of one label depend on each other, with the same widening near 0 and 1.
    `chance` is 1/C for C classes of the judge: for `verified_acc` and the rates with a label drawn at random, for the
    agreement with two judges that guess.

    The agreement and the rates measure the judges, not the target (`quality`). A higher agreement and lower rates make
    the verified accuracy more reliable; this is the direction of `better`.

    References:
        Ho et al., "Revisiting Model Inversion Evaluation", 2025, https://arxiv.org/abs/2505.03519: the standard
        evaluation classifier recognises the attacked person in up to 99 % of reconstructions that do not show them.
        X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483, uses one evaluation classifier.

    Note:
        Ho et al. let a large multimodal model compare images; here a second classifier must agree, so that scores can
        be computed offline and reproduced. Two classifiers can be wrong together; `fpr_both` shows how easily.

    Note:
        `verified_acc` is not corrected by `fpr_both`: negatives are changed public images, not failed reconstructions
        of the attack, so the corrected number would be neither an estimate nor a bound.

    Note:
        Both judges are trained on the same images, all that the protocols have, and so may make the same mistakes.

    Note:
        Equal logits score the expectation of a random order of them, as in `attack_acc`.
    """

    version = 2
    needs = ("ClassReconstructions", "Negatives")
    judges = ("classifier", "second")
    scores = (
        _definition(
            "verified_acc",
            "Verified Acc",
            "share of reconstructions whose largest logit is the attacked label for both judges",
            "leakage",
            "lower",
        ),
        _definition(
            "judge_agreement",
            "Judge Agreement",
            "share of reconstructions of which both judges name the same class",
            "quality",
            "higher",
        ),
        _definition(
            "fpr_first",
            "FPR Judge 1",
            "share of calibrated negatives that fool the target which the first judge takes for the label",
            "quality",
            "lower",
        ),
        _definition(
            "fpr_second",
            "FPR Judge 2",
            "share of calibrated negatives that fool the target which the second judge takes for the label",
            "quality",
            "lower",
        ),
        _definition(
            "fpr_both",
            "FPR Both",
            "share of calibrated negatives that fool the target which both judges take for the label",
            "quality",
            "lower",
        ),
    )

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for attribute tasks, and for protocols without a second judge."""
        reason = needs_classes("verified accuracy", protocol)
        if reason or protocol.second_judge_network is not None:
            return reason
        return f"verified accuracy needs a second judge and {protocol.id} names no network for one"

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute the five scores; `verified_acc` and `judge_agreement` with one value per attacked label."""
        rates = _false_positives(evidence.get(Negatives), judges, 1 / evidence.protocol.judge_classes)
        named = f"the first judge is {_describe(judges.classifier)}, the second {_describe(judges.second)}"
        return self._successes(evidence, judges, (_rate_note(rates["fpr_both"]), named)) | rates

    def _successes(self, evidence: Evidence, judges: Judges, notes: tuple[str, str]) -> dict[str, Score]:
        """Compute `verified_acc` and `judge_agreement`; `notes` describe the rates and the judges."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        shape, chance = tuple(found.pixels.shape[:3]), 1 / evidence.protocol.judge_classes
        names, n = ("verified_acc", "judge_agreement"), int(np.prod(shape))
        if n == 0:
            return {name: Score(value=None, reason=NO_RECONSTRUCTIONS) for name in names}
        decisions = _decisions(found.pixels.flatten(0, 2), judges)
        if isinstance(decisions, str):
            return {name: Score(value=None, n=n, chance=chance, reason=decisions) for name in names}
        (first, second), rows = decisions, np.arange(n)
        label = np.tile(found.labels.cpu().numpy(), n // shape[2])
        verified, agreed = first[rows, label] * second[rows, label], (first * second).sum(1)
        rate, named = notes
        return {
            "verified_acc": self._mean(
                verified.reshape(shape), evidence, f"verified {verified.mean():.1%}; {rate}", named
            ),
            "judge_agreement": self._mean(agreed.reshape(shape), evidence, named),
        }

    def _mean(self, hits: Values, evidence: Evidence, *notes: str) -> Score:
        protocol = evidence.protocol
        return hit_rate(hits, 1 / protocol.judge_classes, protocol.group, notes)


def _describe(judge: Judge) -> str:
    tested = "not tested" if judge.test_accuracy is None else f"right on {judge.test_accuracy:.1%} of its test images"
    return f"{judge.name or 'unnamed'} ({tested})"


def _rate_note(rate: Score) -> str:
    """Note of a verified accuracy on the rate at which both judges are wrong."""
    if rate.value is None:
        return f"the false-positive rate of both judges is unknown: {rate.reason}"
    return f"both judges classify {rate.value:.1%} of {rate.n} calibrated negatives as the label"


def _false_positives(negatives: Negatives, judges: Judges, chance: float) -> dict[str, Score]:
    """Compute the three rates."""
    fooled = negatives.fooled.cpu()
    n, total = int(fooled.sum()), len(fooled)
    if n == 0:
        reason = f"none of {total} calibrated negatives fooled the target"
        reason = reason if total else "there are no calibrated negatives"
        return {name: Score(value=None, chance=chance, reason=reason) for name in _RATES}
    decisions = _decisions(negatives.pixels[fooled], judges)
    if isinstance(decisions, str):
        return {name: Score(value=None, n=n, chance=chance, reason=decisions) for name in _RATES}
    label = negatives.labels[fooled].cpu().numpy()
    first, second = (decision[np.arange(n), label] for decision in decisions)
    note = f"{n} of {total} public images that were pushed towards a label fooled the target"
    return {
        name: Score(value=float(hits.mean()), n=n, interval=rate_over_labels(hits, label), chance=chance, notes=(note,))
        for name, hits in zip(_RATES, (first, second, first * second), strict=True)
    }


def _decisions(pixels: Tensor, judges: Judges) -> tuple[Values, Values] | str:
    """Decisions `N C` of each judge, or the reason why they are undefined."""
    found = []
    for name, judge in (("first", judges.classifier), ("second", judges.second)):
        logits = judge.logits(pixels)
        reason = not_finite(logits, "logits")
        if reason:
            return f"{reason} ({name} judge)"
        found.append(_top(logits))
    return found[0], found[1]


def _top(logits: Tensor) -> Values:
    """Probability that each class is the decision, `N C`: 1 for the largest logit, divided equally among ties."""
    values = logits.double().cpu().numpy()
    largest = values == values.max(1, keepdims=True)
    shares: Values = largest / largest.sum(1, keepdims=True)
    return shares
