"""Attack accuracy: how often the judge recognises the attacked class in a reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..benchmark.contracts import Definition, Evaluator, Protocol, setting
from ..benchmark.evidence import ClassReconstructions, Evidence, Score
from ..benchmark.statistics import Interval, sample_std, stratified, student, two_level, wilson
from ._topk import not_finite, top_k

if TYPE_CHECKING:
    from ..benchmark.judges import Judges

_PLUS_MINUS = (
    "the +- of BiDO's Tables 1, 2, 3 and 5 is the spread `draws`; that of its Table 4 (VMI) is most likely `classes`"
)
#: Below this many labels the bootstrap is visibly too narrow.
_FEW = 20
_FEW_LABELS = (
    "with fewer than 20 labels the bootstrap interval is too narrow as a statement about labels in general; "
    "`classes` is the safer one for that, `draws` and `trials` for these labels alone"
)


class AttackAcc(Evaluator):
    """Attack accuracy, top-1 and top-5, as the judge (the evaluation classifier) sees it.

    `attack_acc = 1/(R S K) sum_rsk [argmax_j judge(x_rsk)_j = y_k]` over R trials, S draws and K attacked labels;
    `attack_acc5` asks whether y_k is among the five largest of the judge's logits.

    Intervals (95 %): `interval` is a bootstrap over labels and, within a label, over its R S draws;
    `intervals["classes"]` is Student-t over the K label means; `intervals["draws"]` holds the labels fixed;
    `intervals["trials"]` is Student-t over the R trial means. Each is `None` where there is no variation to measure.

    Spreads (sample standard deviations): `spreads["draws"]` is BiDO's: in each trial and each group of
    `protocol.group` labels, that of the S accuracies over the labels of the group; then the mean over groups and
    trials. `spreads["trials"]` is that of the R trial means, `spreads["classes"]` that of the K label means.

    References:
        Y. Zhang et al., "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks", CVPR
        2020, https://arxiv.org/abs/1911.07135. X. Peng et al., "Bilateral Dependency Optimization: Defending Against
        Model-inversion Attacks", KDD 2022, https://arxiv.org/abs/2206.05483.

    Note:
        All trials and all draws count; the first public release of BiDO skipped MNIST trials whose FID was below 260
        (COCO, HSIC) or 190 (No-Def, MID).

    Note:
        GMI's own code keeps, per label, the restart with the highest target logit, and calls the share of labels with
        at least one hit in five restarts "Acc5"; here, as in BiDO, every restart counts and top-5 is meant.

    Note:
        KED-MI's code prints the variance of fractions over draws; here it is the standard deviation, as in BiDO.

    Note:
        VMI in BiDO reports the epoch that the judge likes best; no evaluator here selects by the judge.

    Note:
        The main interval pools the trials: draws of one trial share an optimisation, and what that adds shows only in
        `trials`.

    Note:
        If every reconstruction is a hit, or none is, resampling shows nothing and the interval is Wilson's with n = K,
        the labels being the independent units.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions",)
    judges: ClassVar[tuple[str, ...]] = ("classifier",)
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="attack_acc",
            title="Attack Acc",
            measures="leakage",
            better="lower",
            unit="fraction",
            formula="share of reconstructions whose largest judge logit is the attacked label",
            range="[0, 1]",
        ),
        Definition(
            name="attack_acc5",
            title="Attack Acc5",
            measures="leakage",
            better="lower",
            unit="fraction",
            formula="share of reconstructions with the attacked label among the five largest judge logits",
            range="[0, 1]",
        ),
    )
    resamples: int = setting(2000, "bootstrap resamples behind the interval", ge=100, le=1_000_000)
    seed: int = setting(0, "seed of the bootstrap", ge=0)

    def unavailable(self, protocol: Protocol) -> str | None:
        """Attribute tasks have no attacked class."""
        if protocol.task == "classes":
            return None
        return f"attack accuracy needs class labels and {protocol.id} has attributes"

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The scores `attack_acc` and `attack_acc5`, with one value per attacked label."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        shape, classes = tuple(found.pixels.shape[:3]), evidence.protocol.judge_classes
        n = int(np.prod(shape))
        if n == 0:
            return {d.name: Score(value=None, reason="there are no reconstructions") for d in self.scores}
        logits = judges.classifier.logits(found.pixels.flatten(0, 2))
        assert logits.shape == (n, classes)
        reasons = [not_finite(logits)] * 2
        if reasons[1] is None and classes <= 5:
            reasons[1] = f"top-5 is always reached: the judge has {classes} classes"
        labels, group = found.labels.cpu().repeat(n // len(found.labels)), evidence.protocol.group
        return {
            name: Score(value=None, n=n, chance=min(1.0, k / classes), reason=reason)
            if reason
            else self._summary(top_k(logits, labels, k).reshape(shape), k / classes, group)
            for name, k, reason in zip(("attack_acc", "attack_acc5"), (1, 5), reasons, strict=True)
        }

    def _summary(self, hits: NDArray[np.float64], chance: float, group: int) -> Score:
        """Everything about hits `R S K`."""
        draws = hits.reshape(-1, hits.shape[2]).T
        by_label, by_trial = draws.mean(1), hits.mean((1, 2))
        interval, notes = self._interval(draws)
        return Score(
            value=float(hits.mean()),
            n=hits.size,
            interval=interval,
            intervals={
                "classes": student(by_label, (0, 1)),
                "draws": stratified(draws),
                "trials": student(by_trial, (0, 1)),
            },
            spreads={
                "draws": released_spread(hits, group),
                "trials": sample_std(by_trial),
                "classes": sample_std(by_label),
            },
            chance=chance,
            per_class=tuple(float(value) for value in by_label),
            notes=(_PLUS_MINUS, *notes),
        )

    def _interval(self, draws: NDArray[np.float64]) -> tuple[Interval | None, tuple[str, ...]]:
        labels = len(draws)
        if labels < 2:
            return None, ("one label was attacked, so there is no interval over labels",)
        if np.ptp(draws) == 0:
            note = f"no two reconstructions differ in outcome, so the interval is Wilson's over the {labels} labels"
            return wilson(float(draws.flat[0]) * labels, labels), (note,)
        return two_level(draws, self.resamples, self.seed), (_FEW_LABELS,) if labels < _FEW else ()


def released_spread(hits: NDArray[np.float64], group: int) -> float | None:
    """The spread over draws as GMI and KED-MI in BiDO compute it.

    Args:
        hits: `R S K`, values in [0, 1].
        group: labels attacked together; each group has its own standard deviation.

    Returns:
        The mean over trials and groups of the sample standard deviation over draws of the accuracy over the group's
        labels; `None` for one draw.
    """
    trials, draws, labels = hits.shape
    if draws < 2:
        return None
    parts = [hits[:, :, start : start + group].mean(2) for start in range(0, labels, group)]
    return float(np.mean([sample_std(part[trial]) for part in parts for trial in range(trials)]))
