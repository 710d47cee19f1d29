"""Frechet Inception distance in pytorch-fid's features."""

from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.networks.judges import Judges
from ..benchmark.networks.weights import named
from . import _inception
from ._fid import FrechetEvaluator


class FIDInception(FrechetEvaluator):
    """Frechet Inception distance (FID).

    Like `fid_judge`, but in pytorch-fid's 2048 Inception features. That network was not trained on private images.

    References:
        M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
        2017, https://arxiv.org/abs/1706.08500. M. Seitzer, pytorch-fid, https://github.com/mseitzer/pytorch-fid.

    Note:
        Published FIDs use 10,000 images or more. With the few hundred of these protocols the covariances are
        rank-deficient and the value is mostly bias, so only values with equal n are comparable.

    Note:
        Weights are loaded with `weights_only=True` and their SHA-256 is checked; nothing is downloaded here.

    Note:
        The network runs on the CPU, so that a score does not depend on the device of the run.
    """

    weights = _inception.WEIGHTS
    scores = (
        Definition(
            name="fid_inception",
            title="FID (Inception)",
            measures="quality",
            better="higher",
            unit="distance",
            formula="|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) of pytorch-fid's 2048 Inception features, private "
            "training images against all reconstructions of a trial, mean over trials; biased upwards at small n",
            range="[0, inf)",
        ),
    )

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for attribute tasks, and for missing weights."""
        return super().unavailable(protocol) or named.reason(_inception.WEIGHTS)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `fid_inception`.

        Raises:
            MissingDataError: the weights are missing or are not the published ones.
        """
        network = _inception.load()
        score, _ = self.compare_trials(evidence, lambda x: _inception.features(network, x))
        return {"fid_inception": score}
