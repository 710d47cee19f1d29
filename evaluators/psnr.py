"""Peak signal-to-noise ratio of reconstructions."""

import math

import numpy as np

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.networks.judges import Judges
from ._cosine import Values
from ._pairs import measured, pairs, related_groups, score_images, unrelated
from .mse import mean_squared_error


class PSNR(Evaluator):
    """Peak signal-to-noise ratio (PSNR) of reconstructions.

    `psnr = 1/N sum_i -10 log10 MSE_i` in decibels, with MSE_i of values in [0, 1], so the peak is 1. The interval is
    Student-t over people where they are known, else over images. `chance` is the mean PSNR against an original of
    another identity or class.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020.

    Note:
        The mean is over the images' decibels, as in most papers and in torchmetrics with `dim`; Xiao et al. do not
        state it. A note gives the PSNR of the mean squared error over all images, which is lower.

    Note:
        The PSNR of identical images is infinite. Such a reconstruction is counted in a note and enters the mean with
        the PSNR of one value that is one 8-bit level off, the largest finite one: without it a better attack would have
        a lower score. If all are identical, the score is `None`.

    Note:
        scikit-image gives the same numbers; torchmetrics differs in the eighth digit, since it computes the logarithm
        of 10 in single precision.
    """

    needs = ("PairedReconstructions",)
    scores = (
        Definition(
            name="psnr",
            title="PSNR",
            measures="leakage",
            better="lower",
            unit="decibel",
            formula="-10 log10 of the mean squared error of a reconstruction, values in [0, 1], mean over images; an "
            "identical image counts as one with one value one 8-bit level off",
            range="[0, inf)",
        ),
    )

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `psnr`, for class tasks with the mean of every class."""
        rebuilt, images = pairs(evidence)
        errors = measured(mean_squared_error, rebuilt, images.pixels)
        same, n = int((errors == 0).sum()), len(errors)
        if n and same == n:
            reason = f"all {n} reconstructions are identical to their originals, so the PSNR is infinite"
            return {"psnr": Score(value=None, n=n, reason=reason)}
        least = 1 / (255**2 * math.prod(rebuilt.shape[1:]))
        notes: tuple[str, ...] = ()
        if n:
            notes = (f"the PSNR of the mean squared error is {-10 * math.log10(errors.mean()):.3f} dB",)
        if same:
            finite = f"{-10 * math.log10(least):.1f} dB"
            notes += (f"{same} of {n} reconstructions are identical to their originals and count as {finite} each",)
        other = unrelated(related_groups(images))
        chance = None if other is None else decibels(measured(mean_squared_error, rebuilt, images.pixels[other]), least)
        bounds = (0, math.inf)
        return {"psnr": score_images(decibels(errors, least), images, evidence.protocol, bounds, chance, notes)}


def decibels(errors: Values, least: float) -> Values:
    """PSNR of mean squared errors of values in [0, 1]; smaller errors than `least` count as `least`."""
    ratios: Values = -10 * np.log10(np.maximum(errors, least))
    return ratios
