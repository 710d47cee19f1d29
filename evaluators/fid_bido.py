"""Frechet distance exactly as BiDO computes it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ..benchmark.core.statistics import sample_std
from ._fid import first_of_each, over_trials, without_labels

if TYPE_CHECKING:
    from torch import Tensor

    from ..benchmark.networks.judges import Judges


class FIDBiDO(Evaluator):
    """BiDO's FID: the judge's features of images that were stretched to the full range one by one.

    As `fid_judge`, but every private image and every reconstruction is first mapped by
    `x -> (x - min x) / max(max x - min x, 1e-5)` and rounded to 8 bits, as `save_image(normalize=True)` does.

    `spreads["trials"]` is the sample standard deviation over trials; `spreads["trials_as_released"]` is that of the
    list in which the released code has each trial twice.

    References:
        X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483; `DMI/fid_score.py` and `DMI/recovery.py` of the released code.

    Note:
        Reconstructions are stored in 8 bits before they are stretched; the released code stretches the generator's
        floats, so that a pixel differs by at most half a step times the stretch.

    Note:
        The matrix root comes from singular values; SciPy's root of the rank-deficient product (500 images in 512
        features) is less exact.

    Note:
        No trial is skipped; the first public release left out MNIST trials whose FID was low.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions",)
    judges: ClassVar[tuple[str, ...]] = ("classifier",)
    optional: ClassVar[bool] = True
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="fid_bido",
            title="FID (as BiDO)",
            measures="quality",
            better="higher",
            unit="distance",
            formula="fid_judge of images that were each stretched to the full range and rounded to 8 bits",
            range="[0, inf)",
        ),
    )

    def unavailable(self, protocol: Protocol) -> str | None:
        """Attribute tasks have no attacked labels to take private images of."""
        return without_labels(protocol)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `fid_bido`."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        real, notes = first_of_each(evidence.private("private_train"), found.labels, evidence.protocol.reference)
        judge = judges.classifier
        score, values = over_trials(lambda x: judge.features(x, stretch).double().numpy(), real, found.pixels, notes)
        released = sample_std(values * 2) if len(values) > 1 else None
        return {"fid_bido": dataclasses.replace(score, spreads={**score.spreads, "trials_as_released": released})}


def stretch(images: Tensor) -> Tensor:
    """Each of `N C H W` in [0, 1] mapped to the full range, over all its channels, and rounded to 8 bits."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    scaled = (images - low) / (high - low).clamp_min(1e-5)
    return (scaled * 255 + 0.5).clamp(0, 255).floor() / 255
