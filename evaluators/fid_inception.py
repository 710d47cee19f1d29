"""Frechet Inception distance as the rest of the field computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ._fid import first_of_each, over_trials, without_labels

if TYPE_CHECKING:
    from ..benchmark.networks.judges import Judges


class FIDInception(Evaluator):
    """Frechet distance between private images and reconstructions in pytorch-fid's 2048 Inception features.

    As `fid_judge` with another network: one that never saw the private images, so that it is a second opinion.

    References:
        M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
        2017, https://arxiv.org/abs/1706.08500. M. Seitzer, pytorch-fid, https://github.com/mseitzer/pytorch-fid.

    Note:
        Published FIDs take 10,000 images or more; with the few hundred of these protocols the covariances are
        rank-deficient and the value mostly bias, so only values with equal n compare.

    Note:
        Weights are read with `weights_only=True` and their SHA-256 is compared; nothing is downloaded here.

    Note:
        The network runs on the CPU, so that a score does not depend on the device of the run.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions",)
    scores: ClassVar[tuple[Definition, ...]] = (
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
        """Needs class labels and the weights."""
        from ._inception import FILE, weights_path

        reason, path = without_labels(protocol), weights_path()
        if reason or path.is_file():
            return reason
        return f"fid_inception needs pytorch-fid's {FILE} in torch.hub's checkpoints folder (see privbench doctor)"

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `fid_inception`.

        Raises:
            MissingDataError: the weights are not the published ones.
        """
        from . import _inception

        found: ClassReconstructions = evidence.get(ClassReconstructions)
        real, notes = first_of_each(evidence.private("private_train"), found.labels, evidence.protocol.reference)
        network = _inception.load(_inception.weights_path())
        score, _ = over_trials(lambda x: _inception.features(network, x), real, found.pixels, notes)
        return {"fid_inception": score}
