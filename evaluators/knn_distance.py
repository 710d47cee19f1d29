"""Distance of reconstructions to the nearest private images of their class, as no judge of the attack sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol, StageKind, setting
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ..benchmark.errors import InvalidConfigurationError, MissingDataError
from ._cosine import not_finite, unit
from ._nearest import over_labels, private_embeddings
from ._pairs import unrelated

if TYPE_CHECKING:
    from torch import Tensor

    from ..benchmark.networks.judges import Judges

Values = NDArray[np.float64]
#: Reconstructions compared at a time.
_CHUNK = 256
#: Of vectors of unit length.
_BOUNDS = (0.0, 2.0)


class KNNDistance(Evaluator):
    """Mean distance to the k nearest private training images of the attacked class.

    With the embedder E, which gives vectors of unit length, over R trials, S draws and K attacked labels:
    `knn_distance = 1/(R S K) sum_rsk 1/k sum_{x in kNN} |E(xhat_rsk) - E(x)|`, where kNN are the k private training
    images of class k whose embeddings are nearest and `|.|` is the Euclidean norm; so 0 for a copy, sqrt(2) for images
    that have nothing in common, 2 at most. A class with fewer than k images has all of them.

    Intervals and spreads are those of `face_similarity`. `chance` is what an unrelated class gives: the same with the
    private images of another label, drawn at random and always the same. Distances do not reach 0, so read the score
    beside it: at `chance` a reconstruction is no nearer to its class than to another.

    References:
        Y. Zhang et al., "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks", CVPR
        2020, https://arxiv.org/abs/1911.07135 (KNN Dist). S. Chen et al., "Knowledge-Enriched Distributional
        Model Inversion Attacks", ICCV 2021, https://arxiv.org/abs/2010.04092. L. Struppek et al., "Plug & Play
        Attacks: Towards Robust and Flexible Model Inversion Attacks", ICML 2022, https://arxiv.org/abs/2201.12179.

    Note:
        GMI and KED-MI measure in features of the evaluation classifier, Plug & Play Attacks also in FaceNet's; the
        first judge would so be asked twice, and what fools it would be near, too. Here features are those of a network
        that is neither target nor judge: histograms of oriented gradients, or another embedder.

    Note:
        Their features have any length, and some codes give squared distances; here they have unit length, so that
        values of equal embedders compare between data sets.
    """

    needs: ClassVar[tuple[str, ...]] = ("ClassReconstructions",)
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="knn_distance",
            title="KNN Dist.",
            measures="leakage",
            better="higher",
            unit="distance",
            formula="Euclidean distance of the unit embeddings of a reconstruction and of the nearest private training "
            "images of its class, mean over those and over reconstructions",
            range="[0, 2]",
        ),
    )
    embedder: str = setting("hog", "network whose features are compared, a name in `privbench list embedders`")
    k: int = setting(1, "nearest private images that are averaged", ge=1)
    resamples: int = setting(2000, "bootstrap resamples behind the interval over labels", ge=100, le=1_000_000)
    seed: int = setting(0, "seed of the bootstrap", ge=0)

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        """The hash of the embedder's weights, which decide the scores."""
        from ..benchmark.networks.weights import named

        return named.files_of("embedder", self.embedder) if stage in (None, "scores") else {}

    def unavailable(self, protocol: Protocol) -> str | None:
        """Where there are no classes, no weights, or the embedder refuses the images."""
        if protocol.task != "classes":
            return f"the distance to private images of the class needs class labels and {protocol.id} has attributes"
        try:
            self.files()
        except MissingDataError:  # its sentence may name a folder of this machine, and records travel
            why = "which are not here or damaged; `privbench weights ls` says what to do"
            return f"the distance to private images needs the weights of {self.embedder}, {why}"
        return _refusal(self.embedder, protocol)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `knn_distance`, with one value per attacked label."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        shape, labels = tuple(found.pixels.shape[:3]), found.labels.cpu()
        if not int(np.prod(shape)):
            return {"knn_distance": Score(value=None, reason="there are no reconstructions")}
        embedded = judges.embeddings(self.embedder, found.pixels.flatten(0, 2))
        private = private_embeddings(evidence.private("private_train"), labels, judges, self.embedder)
        reason = not_finite(embedded, "embeddings")
        reason = reason or next((r for part in private if (r := not_finite(part, "embeddings"))), None)
        if reason:
            return {"knn_distance": Score(value=None, n=int(np.prod(shape)), reason=reason)}
        grid = unit(embedded).reshape(*shape, -1)
        values = self._distances(grid, private)
        other = unrelated(labels.numpy())
        chance = None if other is None else self._distances(grid, [private[place] for place in other])
        count = sum(map(len, private)) / len(private)
        notes = (
            f"features are those of {self.embedder}, of unit length",
            f"a reconstruction is compared with the nearest {self.k} of {count:.1f} private images on average",
        )
        return {"knn_distance": over_labels(values, chance, _BOUNDS, self.resamples, self.seed, notes)}

    def _distances(self, grid: Values, private: list[Tensor]) -> Values:
        """Mean distances `R S K` of rows `R S K D` to the k nearest of each label's rows `M D`."""
        found = []
        for place, rows in enumerate(private):
            parts = grid[:, :, place].reshape(-1, grid.shape[-1])
            found.append(_nearest(parts, unit(rows), self.k).reshape(grid.shape[:2]))
        return np.stack(found, 2)


def _nearest(x: Values, rows: Values, k: int) -> Values:
    """Mean distance of each row of `N D` to the nearest k of unit rows `M D`, NaN where there are none.

    Inner products choose the nearest; their distances are then taken from the differences, so that a copy has 0.
    """
    if len(rows) == 0:
        return np.full(len(x), np.nan)
    k = min(k, len(rows))
    found = []
    for part in np.split(x, range(_CHUNK, len(x), _CHUNK)):
        chosen = np.argpartition(-(part @ rows.T), k - 1, axis=1)[:, :k]
        found.append(np.linalg.norm(part[:, None] - rows[chosen], axis=2).mean(1))
    distances: Values = np.concatenate(found)
    return distances


def _refusal(name: str, protocol: Protocol) -> str | None:
    """Why an embedder means nothing on the protocol's images, in its own words; `None` if it takes them."""
    import torch

    from ..benchmark.networks.factory import build_embedder

    try:
        build_embedder(name, pretrained=False).embed(torch.zeros(0, *protocol.image), protocol)
    except InvalidConfigurationError as refused:
        return str(refused)
    return None
