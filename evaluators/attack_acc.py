"""Attack accuracy: share of reconstructions that the judge classifies as the attacked class."""

import numpy as np

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ..benchmark.networks.judges import Judges
from ._hit_rate import hit_rate
from ._reasons import NO_RECONSTRUCTIONS, needs_classes, not_finite
from ._topk import top_k

_PLUS_MINUS = (
    "the +- of BiDO's Tables 1, 2, 3 and 5 is the spread `draws`; that of its Table 4 (VMI) is most likely `classes`"
)


class AttackAcc(Evaluator):
    """Attack accuracy, top-1 and top-5.

    The judge (the evaluation classifier of the papers) classifies the reconstructions:
    `attack_acc = 1/(R S K) sum_rsk [argmax_j judge(x_rsk)_j = y_k]` over R trials, S draws and K attacked labels;
    `attack_acc5` is the share with y_k among the five largest logits of the judge.

    Intervals (95 %): `interval` is Student-t over the rates of the K labels, and reaches further towards 1/2 where few
    labels have hits, or misses; `intervals["draws"]` holds the labels fixed; `intervals["trials"]` is Student-t over
    the R trial means. The latter two are `None` where nothing varies.

    Spreads (sample standard deviations): `spreads["draws"]` is BiDO's: the standard deviation over draws of the
    accuracy over a group of `protocol.group` labels, averaged over groups and trials. `spreads["trials"]` is over the R
    trial means, `spreads["classes"]` over the K label means.

    References:
        Y. Zhang et al., "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks", CVPR
        2020, https://arxiv.org/abs/1911.07135. X. Peng et al., "Bilateral Dependency Optimization: Defending Against
        Model-inversion Attacks", KDD 2022, https://arxiv.org/abs/2206.05483.

    Note:
        All trials and all draws count; the first public release of BiDO skipped MNIST trials whose FID was below 260
        (COCO, HSIC) or 190 (No-Def, MID).

    Note:
        GMI's own code keeps, per label, the restart with the highest target logit, and uses "Acc5" for the share of
        labels with at least one hit in five restarts. Here, as in BiDO, every restart counts and Acc5 is top-5.

    Note:
        KED-MI's code prints the variance of fractions over draws; here it is the standard deviation, as in BiDO.

    Note:
        VMI in BiDO reports the epoch with the highest accuracy under the judge; here nothing is selected by the judge.

    Note:
        The main interval pools the trials. Draws of one trial share an optimisation; only `trials` includes the
        variation between optimisations.

    Note:
        If all labels have the same rate, as when every reconstruction is a hit, the interval is Wilson's with n = K,
        since the labels are the independent units.

    Note:
        The labels stand for all that could be attacked. Where the attacked labels are all that matter, as the five
        private digits are, read `draws` or `trials`.
    """

    version = 2
    needs = ("ClassReconstructions",)
    judges = ("classifier",)
    scores = (
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

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for attribute tasks, which have no attacked class."""
        return needs_classes("attack accuracy", protocol)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `attack_acc` and `attack_acc5`, with one value per attacked label."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        shape, classes = tuple(found.pixels.shape[:3]), evidence.protocol.judge_classes
        n = int(np.prod(shape))
        if n == 0:
            return {d.name: Score(value=None, reason=NO_RECONSTRUCTIONS) for d in self.scores}
        logits = judges.classifier.logits(found.pixels.flatten(0, 2))
        assert logits.shape == (n, classes)
        reasons = [not_finite(logits, "logits")] * 2
        trivial = classes <= 5
        if trivial:
            reasons[1] = f"top-5 is always reached: the judge has {classes} classes"
        labels, group = found.labels.cpu().repeat(n // len(found.labels)), evidence.protocol.group
        return {
            name: Score(value=None, n=n, chance=min(1.0, k / classes), reason=reason, not_applicable=k > 1 and trivial)
            if reason
            else hit_rate(top_k(logits, labels, k).reshape(shape), k / classes, group, (_PLUS_MINUS,))
            for name, k, reason in zip(("attack_acc", "attack_acc5"), (1, 5), reasons, strict=True)
        }
