"""Distance of reconstructions to the nearest private images of their class, in features of an independent network."""

import numpy as np

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol, StageKind, UsedNetwork, setting
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.errors import InvalidConfigurationError
from ..benchmark.networks.factory import require_embeddable
from ..benchmark.networks.judges import Judges
from ._cosine import Values
from ._nearest import score_nearest
from ._reasons import needs_classes, needs_embedder

#: Reconstructions compared at once.
_CHUNK = 256


class KNNDistance(Evaluator):
    """Mean distance to the nearest private images of the class.

    With an embedder E of unit vectors, over R trials, S draws and K attacked labels:
    `knn_distance = 1/(R S K) sum_rsk 1/k sum_{x in kNN} |E(xhat_rsk) - E(x)|`, where kNN are the k private training
    images of the class with the nearest embeddings and `|.|` is the Euclidean norm. It is 0 for a copy, sqrt(2) for
    images that have nothing in common, and at most 2. A class with fewer than k images uses all of them.

    Intervals and spreads are those of `face_similarity` for classes. `chance` is the distance to an unrelated class:
    the private images of another label, drawn at random with a fixed seed. Distances rarely reach 0, so compare the
    score with `chance`, at which a reconstruction is no nearer to its class than to another.

    References:
        Y. Zhang et al., "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks", CVPR
        2020, https://arxiv.org/abs/1911.07135 (KNN Dist). S. Chen et al., "Knowledge-Enriched Distributional
        Model Inversion Attacks", ICCV 2021, https://arxiv.org/abs/2010.04092. L. Struppek et al., "Plug & Play
        Attacks: Towards Robust and Flexible Model Inversion Attacks", ICML 2022, https://arxiv.org/abs/2201.12179.

    Note:
        GMI and KED-MI use features of the evaluation classifier (our judge), Plug & Play Attacks also FaceNet's. With
        the judge's features, images that fool the judge would also be near. Here the features are independent of target
        and judge: histograms of oriented gradients, or another embedder.

    Note:
        Their features have any length, and some codes give squared distances. Here they have unit length, so values of
        one embedder are comparable between data sets.
    """

    version = 2
    needs = ("ClassReconstructions",)
    scores = (
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
    k: int = setting(1, "number of nearest private images to average over", ge=1)

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        """The embedder, which decides the scores."""
        return (("embedder", self.embedder),) if stage in (None, "scores") else ()

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for attribute tasks, missing weights, and images that the embedder refuses."""
        reason = needs_classes("the distance to private images", protocol) or needs_embedder(self.embedder)
        if reason:
            return reason
        try:
            require_embeddable(self.embedder, protocol)
        except InvalidConfigurationError as refused:
            return str(refused)
        return None

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `knn_distance`, with one value per attacked label."""
        score = score_nearest(
            evidence,
            judges,
            self.embedder,
            self._distances,
            k=self.k,
            bounds=(0, 2),
            note=f"features are those of {self.embedder}, of unit length",
        )
        return {"knn_distance": score}

    def _distances(self, found: Values, private: Values) -> Values:
        """Mean distance of each unit row of `R S D` to the nearest k of unit rows `M D`.

        Inner products select the nearest; their distances are computed from differences, so that a copy has 0.
        """
        k, distances = min(self.k, len(private)), []
        flat = found.reshape(-1, found.shape[-1])
        for part in np.split(flat, range(_CHUNK, len(flat), _CHUNK)):
            nearest = np.argpartition(-(part @ private.T), k - 1, axis=1)[:, :k]
            distances.append(np.linalg.norm(part[:, None] - private[nearest], axis=2).mean(1))
        return np.concatenate(distances).reshape(found.shape[:2])
