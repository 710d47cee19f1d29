"""Attack accuracy: how often the judge recognises the attacked class in a reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol, setting
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ._hits import summary
from ._topk import not_finite, top_k

if TYPE_CHECKING:
    from ..benchmark.networks.judges import Judges

_PLUS_MINUS = (
    "the +- of BiDO's Tables 1, 2, 3 and 5 is the spread `draws`; that of its Table 4 (VMI) is most likely `classes`"
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
            else summary(
                top_k(logits, labels, k).reshape(shape), k / classes, group, self.resamples, self.seed, (_PLUS_MINUS,)
            )
            for name, k, reason in zip(("attack_acc", "attack_acc5"), (1, 5), reasons, strict=True)
        }
