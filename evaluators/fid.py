"""Frechet distance in the features of the judge."""

from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.networks.judges import Judges
from ._fid import FrechetEvaluator


class FID(FrechetEvaluator):
    """Frechet distance in the features of the judge.

    `fid_judge = mean_r d(real, fake_r)`, where d is the Frechet distance in the judge's last latent, real are the first
    `protocol.reference` private training images of each attacked label, and fake_r are all S K reconstructions of trial
    r. The interval is Student-t over trials (`None` for one trial: a bootstrap over images would be biased upwards, as
    the distance itself is).

    References:
        X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483. M. Heusel et al., NeurIPS 2017, https://arxiv.org/abs/1706.08500.

    Note:
        These are not Inception features, so the values are comparable only with BiDO's. The judge also gives the
        attack accuracy, so the two scores are not independent.

    Note:
        Pixels are compared as they are; BiDO stretches each image to the full range first (`fid_bido` does so).

    Note:
        The distance is biased upwards at these sizes (two samples of one 64-dimensional standard Gaussian: 45 at
        n = 50, 12 at 200, 2.2 at 1000). So trials are averaged, as in BiDO, not pooled, and only values with equal n
        are comparable.

    Note:
        All draws and trials count. The first public release of BiDO skipped MNIST trials with a low FID, and appended
        each trial's FID twice, so its standard deviation over five trials is 0.943 of the correct one.
    """

    judges = ("classifier",)
    scores = (
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

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `fid_judge`."""
        judge = judges.classifier
        score, _ = self.compare_trials(evidence, lambda x: judge.features(x).double().numpy())
        return {"fid_judge": score}
