"""Mean squared error of reconstructions."""

from torch import Tensor

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.networks.judges import Judges
from ._cosine import Values
from ._pairs import pixel_score


class MSE(Evaluator):
    """Mean squared error of reconstructions.

    `mse = 1/N sum_i |x_i - xhat_i|^2 / (C H W)`, with pixel values in [0, 1]. The interval is Student-t over people
    where they are known, else over images. `chance` is the mean squared error against an original of another identity
    or class.

    Note:
        This is the loss that the decoder attack minimises (Eq. 1 of Xiao et al., who do not report it), divided by the
        number of values.

    Note:
        The error is that of stored reconstructions, in 8 bits, which adds about 1.3e-6 to the error of a decoder's
        output.
    """

    needs = ("PairedReconstructions",)
    scores = (
        Definition(
            name="mse",
            title="MSE",
            measures="leakage",
            better="higher",
            unit="distance",
            formula="mean over values of the squared difference of reconstruction and original, values in [0, 1]; mean "
            "over images",
            range="[0, 1]",
        ),
    )

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `mse`, for class tasks with the mean of every class."""
        return {"mse": pixel_score(evidence, mean_squared_error, (0, 1))}


def mean_squared_error(x: Tensor, y: Tensor) -> Values:
    """Mean squared difference of each pair of images.

    Args:
        x: `float64 N C H W`.
        y: the same.

    Returns:
        `float64 N`.
    """
    values: Values = (x - y).square().mean((1, 2, 3)).numpy()
    return values
