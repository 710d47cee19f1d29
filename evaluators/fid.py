"""Frechet distance in the features of the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ._fid import first_of_each, over_trials, without_labels

if TYPE_CHECKING:
    from ..benchmark.networks.judges import Judges


class FID(Evaluator):
    """Frechet distance between private images and reconstructions in the judge's last latent.

    `fid_judge = mean_r d(real, fake_r)`, with d of `_frechet`, real = the first `protocol.reference` private training
    images of each attacked label and fake_r = all S K reconstructions of trial r. The interval is Student-t over
    trials (`None` for one trial: a bootstrap over images would be biased upwards, as the distance itself is).

    References:
        X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483. M. Heusel et al., NeurIPS 2017, https://arxiv.org/abs/1706.08500.

    Note:
        These are not Inception features, so the values compare with BiDO's and with nobody else's; the same network
        gives the attack accuracy, so the two are not independent.

    Note:
        Pixels are compared as they are; BiDO stretches each image to the full range first (`fid_bido` does so).

    Note:
        The distance is biased upwards at these sizes (two samples of one 64-dimensional standard Gaussian: 45 at
        n = 50, 12 at 200, 2.2 at 1000), so trials are averaged, as in BiDO, not pooled, and only values with equal n
        compare.

    Note:
        All draws and trials count; the first public release of BiDO skipped MNIST trials with a low FID, and appended
        each trial's FID twice, which makes its standard deviation over five trials 0.943 of the right one.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions",)
    judges: ClassVar[tuple[str, ...]] = ("classifier",)
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="fid_judge",
            title="FID (judge)",
            measures="quality",
            better="higher",
            unit="distance",
            formula="|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the judge's last latent, private training images "
            "against all reconstructions of a trial, mean over trials; biased upwards at small n",
            range="[0, inf)",
        ),
    )

    def unavailable(self, protocol: Protocol) -> str | None:
        """Attribute tasks have no attacked labels to take private images of."""
        return without_labels(protocol)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `fid_judge`."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        real, notes = first_of_each(evidence.private("private_train"), found.labels, evidence.protocol.reference)
        judge = judges.classifier
        score, _ = over_trials(lambda x: judge.features(x).double().numpy(), real, found.pixels, notes)
        return {"fid_judge": score}
