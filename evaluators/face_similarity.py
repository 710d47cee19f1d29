"""Similarity of the faces in reconstructions and private images."""

import numpy as np

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol, StageKind, UsedNetwork, setting
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.networks.judges import Judges
from ._cosine import Values, cosine
from ._nearest import score_nearest
from ._pairs import pairs, related_groups, score_images, unrelated
from ._reasons import NO_RECONSTRUCTIONS, needs_embedder, not_finite


class FaceSimilarity(Evaluator):
    """Cosine similarity of reconstructed and private faces.

    For paired reconstructions, `face_similarity = 1/N sum_i cos(E(xhat_i), E(x_i))` with the embedder E; the interval
    is Student-t over people where they are known, else over images. For class reconstructions,
    `face_similarity = 1/(R S K) sum_rsk max_{x in class k} cos(E(xhat_rsk), E(x))` over R trials, S draws and K
    attacked labels, where x is the nearest private training image of the class; `interval` and `intervals["trials"]`
    are Student-t over the means of labels and of trials, and `spreads` are the sample standard deviations of those.

    `chance` is the similarity to an unrelated face: a private image (the nearest of a class) of another identity, drawn
    at random with a fixed seed. Unrelated faces do not have cosine 0, so compare the score with `chance`.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020.
        F. Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015,
        https://arxiv.org/abs/1503.03832.

    Note:
        The paper uses features of layer 3 of OpenFace, which are not the embedding with which that network compares
        faces. Here it is the embedding of the network in the note, so values are comparable only for the same network.

    Note:
        The paper has no class reconstructions. A class has many images, and recovering one of them is a leak. The more
        images a class has, the nearer is the nearest; the same holds for `chance`.
    """

    version = 2
    needs = ("PairedReconstructions|ClassReconstructions",)
    scores = (
        Definition(
            name="face_similarity",
            title="Face Sim.",
            measures="leakage",
            better="lower",
            unit="similarity",
            formula="cosine of the face embeddings of a reconstruction and its original, mean over images; of class "
            "reconstructions, of the nearest private training image of the class",
            range="[-1, 1]",
        ),
    )
    embedder: str = setting("facenet_vggface2", "network that compares faces, a name in `privbench list embedders`")

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        """The embedder, which decides the scores."""
        return (("embedder", self.embedder),) if stage in (None, "scores") else ()

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for protocols without faces, and for missing weights."""
        if protocol.face_box is None:
            return f"face similarity needs aligned faces and {protocol.id} has none"
        return needs_embedder(self.embedder)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `face_similarity`, for class tasks with one value per class."""
        note = f"faces are compared by {self.embedder}; the paper's network is OpenFace, layer 3"
        if "PairedReconstructions" in evidence.items:
            return {"face_similarity": self._compare_pairs(evidence, judges, note)}
        score = score_nearest(
            evidence,
            judges,
            self.embedder,
            _largest_cosines,
            k=1,
            bounds=(-1, 1),
            note=note,
        )
        return {"face_similarity": score}

    def _compare_pairs(self, evidence: Evidence, judges: Judges, note: str) -> Score:
        """Compare each reconstruction with its original."""
        rebuilt, images = pairs(evidence)
        if len(images) == 0:
            return Score(value=None, reason=NO_RECONSTRUCTIONS)
        found, private = (judges.embeddings(self.embedder, x) for x in (rebuilt, images.pixels))
        reason = not_finite(found, "embeddings") or not_finite(private, "embeddings")
        if reason:
            return Score(value=None, n=len(images), reason=reason)
        other = unrelated(related_groups(images))
        chance = None if other is None else cosine(found, private[other])
        return score_images(cosine(found, private), images, evidence.protocol, (-1, 1), chance, (note,))


def _largest_cosines(faces: Values, private: Values) -> Values:
    """Largest cosine of each face `R S D` with unit rows `M D`."""
    largest: Values = np.clip(faces @ private.T, -1, 1).max(2)
    return largest
