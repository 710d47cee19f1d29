"""The evaluator diversity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from privbench import ClassReconstructions, Definition, Evaluator, Evidence, Score
from privbench.benchmark.core.statistics import student

if TYPE_CHECKING:
    from privbench.benchmark.networks.judges import Judges
    from torch import Tensor


class Diversity(Evaluator):
    """Difference between the draws of one label; near 0, an attack returns the same image every time.

    The score is the root mean squared difference of the pixels of two draws, in [0, 1], averaged over the pairs of
    draws of a label and trial, over trials, and over labels. `chance` is the same value for the private training
    images. The interval is Student-t over the labels.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions",)
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="diversity",
            title="Diversity",
            measures="quality",
            better="higher",
            unit="distance",
            formula="root mean squared difference of the pixels of two draws of a label, mean over pairs and labels",
            range="[0, 1]",
        ),
    )

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `diversity`, with one value per attacked label."""
        import torch

        found: ClassReconstructions = evidence.get(ClassReconstructions)
        trials, draws, labels = found.pixels.shape[:3]
        if trials * labels == 0 or draws < 2:
            return {"diversity": Score(None, reason="there are no two draws of a label")}
        values = torch.stack(
            [torch.stack([apart(trial[:, k]) for trial in found.pixels]).mean() for k in range(labels)]
        )
        private = evidence.private("private_train")
        real = [private.pixels[private.labels == label] for label in found.labels]
        chances = [float(apart(pixels)) for pixels in real if len(pixels) > 1]
        score = Score(
            value=float(values.mean()),
            n=trials * labels * draws * (draws - 1) // 2,
            interval=student(values.numpy(), (0, 1)),
            chance=sum(chances) / len(chances) if chances else None,
            per_class=tuple(values.tolist()),
        )
        return {"diversity": score}


def apart(pixels: Tensor) -> Tensor:
    """Root mean squared difference of two images, averaged over all pairs.

    Args:
        pixels: `uint8 N C H W`, N at least 2.
    """
    import torch

    x = pixels.flatten(1).double() / 255
    return torch.pdist(x).mean() / x.shape[1] ** 0.5
