"""Verified accuracy: what two independent judges agree on, beside how often they are taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol, setting
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Negatives, Score
from ..benchmark.core.statistics import wilson
from ._hits import summary
from ._topk import not_finite

if TYPE_CHECKING:
    from torch import Tensor

    from ..benchmark.networks.judges import Judge, Judges

Values = NDArray[np.float64]
_RATES = ("fpr_first", "fpr_second", "fpr_both")


def _definition(
    name: str, title: str, formula: str, measures: Literal["leakage", "quality"], better: Literal["higher", "lower"]
) -> Definition:
    return Definition(
        name=name, title=title, measures=measures, better=better, unit="fraction", formula=formula, range="[0, 1]"
    )


class VerifiedAcc(Evaluator):
    """Attack accuracy that two judges confirm, their agreement, and their false-positive rates.

    With the judges a and b, of different architecture and training, over R trials, S draws and K attacked labels:
    `verified_acc = 1/(R S K) sum_rsk [argmax_j a(x_rsk)_j = y_k] [argmax_j b(x_rsk)_j = y_k]`,
    `judge_agreement = 1/(R S K) sum_rsk [argmax_j a(x_rsk)_j = argmax_j b(x_rsk)_j]`.

    Over the N calibrated negatives (public images pushed towards a label, see `benchmark.negatives`) that fool the
    target: `fpr_first = 1/N sum_i [argmax_j a(x_i)_j = y_i]`, `fpr_second` the same with b, and
    `fpr_both = 1/N sum_i [argmax_j a(x_i)_j = y_i] [argmax_j b(x_i)_j = y_i]`. Of reconstructions that fool the target
    and show nothing of the class, such as an attack with too many degrees of freedom gives, about this share is
    counted all the same.

    `verified_acc` is never above `attack_acc`. Real images of the class do not score 1 either, but about the share that
    both judges get right; the notes give the accuracy of each.

    Intervals and spreads of the first two are those of `attack_acc`; those of the rates are Wilson's. `chance` is 1/C
    for C classes of the judge: of the first and of the rates for a label drawn at random, of the agreement for two
    judges that guess.

    The agreement and the rates measure the instrument, not the target (`quality`): a reader who wants to trust the
    verified accuracy prefers a higher agreement and lower rates, and that is what `better` says of them.

    References:
        Ho et al., "Revisiting Model Inversion Evaluation", 2025, https://arxiv.org/abs/2505.03519: the standard judge
        takes up to 99 % of reconstructions that show nobody for the attacked person.
        X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483, has one judge.

    Note:
        Ho et al. let a large multimodal model compare pictures; here a second classifier must agree, so that numbers
        can be had offline and again. Two classifiers can be wrong together, which `fpr_both` estimates.

    Note:
        Both judges have learned from the same images, which are all that the protocols have, and share their mistakes.

    Note:
        Equal logits score the expectation of a random order of them, as in `attack_acc`.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions", "Negatives")
    judges: ClassVar[tuple[str, ...]] = ("classifier", "second")
    scores: ClassVar[tuple[Definition, ...]] = (
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
    resamples: int = setting(2000, "bootstrap resamples behind the interval", ge=100, le=1_000_000)
    seed: int = setting(0, "seed of the bootstrap", ge=0)

    def unavailable(self, protocol: Protocol) -> str | None:
        """Attribute tasks have no attacked class, and some protocols no second judge."""
        if protocol.task != "classes":
            return f"verified accuracy needs class labels and {protocol.id} has attributes"
        if protocol.second_judge_network is None:
            return f"verified accuracy needs a second judge and {protocol.id} names no network for one"
        return None

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The five scores; `verified_acc` and `judge_agreement` with one value per attacked label."""
        rates = _false_positives(evidence.get(Negatives), judges, 1 / evidence.protocol.judge_classes)
        named = f"the first judge is {_about(judges.classifier)}, the second {_about(judges.second)}"
        return self._successes(evidence, judges, (_beside(rates["fpr_both"]), named)) | rates

    def _successes(self, evidence: Evidence, judges: Judges, notes: tuple[str, str]) -> dict[str, Score]:
        """`verified_acc` and `judge_agreement`; `notes` tell of the rates and of the judges."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        shape, chance = tuple(found.pixels.shape[:3]), 1 / evidence.protocol.judge_classes
        names, n = ("verified_acc", "judge_agreement"), int(np.prod(shape))
        if n == 0:
            return {name: Score(value=None, reason="there are no reconstructions") for name in names}
        decided = _decisions(found.pixels.flatten(0, 2), judges)
        if isinstance(decided, str):
            return {name: Score(value=None, n=n, chance=chance, reason=decided) for name in names}
        (first, second), rows = decided, np.arange(n)
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
        return summary(hits, 1 / protocol.judge_classes, protocol.group, self.resamples, self.seed, notes)


def _about(judge: Judge) -> str:
    tested = "not tested" if judge.test_accuracy is None else f"right on {judge.test_accuracy:.1%} of its test images"
    return f"{judge.name or 'unnamed'} ({tested})"


def _beside(rate: Score) -> str:
    """What stands beside a verified accuracy."""
    if rate.value is None:
        return f"how often both judges are wrong is not known: {rate.reason}"
    return f"both judges take {rate.value:.1%} of {rate.n} calibrated negatives for the label"


def _false_positives(negatives: Negatives, judges: Judges, chance: float) -> dict[str, Score]:
    """The three rates."""
    fooled = negatives.fooled.cpu()
    n, all_ = int(fooled.sum()), len(fooled)
    if n == 0:
        reason = (
            f"none of {all_} calibrated negatives fooled the target" if all_ else "there are no calibrated negatives"
        )
        return {name: Score(value=None, chance=chance, reason=reason) for name in _RATES}
    decided = _decisions(negatives.pixels[fooled], judges)
    if isinstance(decided, str):
        return {name: Score(value=None, n=n, chance=chance, reason=decided) for name in _RATES}
    label = negatives.labels[fooled].cpu().numpy()
    first, second = (decision[np.arange(n), label] for decision in decided)
    note = f"{n} of {all_} public images that were pushed towards a label fooled the target"
    return {
        name: Score(value=float(hits.mean()), n=n, interval=wilson(float(hits.sum()), n), chance=chance, notes=(note,))
        for name, hits in zip(_RATES, (first, second, first * second), strict=True)
    }


def _decisions(pixels: Tensor, judges: Judges) -> tuple[Values, Values] | str:
    """What each judge takes images for, or why that cannot be said."""
    found = []
    for name, judge in (("first", judges.classifier), ("second", judges.second)):
        logits = judge.logits(pixels)
        reason = not_finite(logits)
        if reason:
            return f"{reason}, of the {name} judge"
        found.append(_top(logits))
    return found[0], found[1]


def _top(logits: Tensor) -> Values:
    """The probability that each class comes first, `N C`: 1 for the largest logit, shared out where several are."""
    values = logits.double().cpu().numpy()
    largest = values == values.max(1, keepdims=True)
    shares: Values = largest / largest.sum(1, keepdims=True)
    return shares
