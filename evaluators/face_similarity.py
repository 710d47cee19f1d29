"""Similarity of faces in reconstructions and private images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol, StageKind, setting
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Score
from ..benchmark.errors import MissingDataError
from ._cosine import cosine, not_finite, unit
from ._nearest import over_labels, private_embeddings
from ._pairs import kinds, pairs, summary, unrelated

if TYPE_CHECKING:
    from ..benchmark.networks.judges import Judges

Values = NDArray[np.float64]


class FaceSimilarity(Evaluator):
    """Cosine of the embeddings of a reconstructed face and of the private one.

    Of paired reconstructions: `face_similarity = 1/N sum_i cos(E(xhat_i), E(x_i))` with the embedder E; intervals and
    spreads are those of `_pairs`. Of class reconstructions:
    `face_similarity = 1/(R S K) sum_rsk max_{x in class k} cos(E(xhat_rsk), E(x))` over R trials, S draws and K
    attacked labels, with the private training image of the class that is nearest; `interval` is a bootstrap over labels
    and, within a label, over its R S draws, `intervals["classes"]` and `intervals["trials"]` are Student-t over the
    means of labels and trials, and `spreads` are the sample standard deviations of those means.

    `chance` is what an unrelated face gives: the same with a private image (the nearest of a class) of another
    identity, drawn at random and always the same. Cosines of embeddings do not begin at 0, so read the score beside it.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020.
        F. Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015,
        https://arxiv.org/abs/1503.03832.

    Note:
        The paper takes features of layer 3 of OpenFace, which are not what that network compares faces by; here it is
        the embedding of the network that the note names, so values compare only where it is the same.

    Note:
        The paper has no class reconstructions; a class has many images, and one of them recovered is enough. The more
        images a class has, the nearer the nearest is, which `chance` shares.
    """

    needs: ClassVar[tuple[str, ...]] = ("PairedReconstructions|ClassReconstructions",)
    scores: ClassVar[tuple[Definition, ...]] = (
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
    resamples: int = setting(2000, "bootstrap resamples behind the interval over labels", ge=100, le=1_000_000)
    seed: int = setting(0, "seed of the bootstrap", ge=0)

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        """The hash of the embedder's weights, which decide the scores."""
        from ..benchmark.networks.weights import named

        return named.files_of("embedder", self.embedder) if stage in (None, "scores") else {}

    def unavailable(self, protocol: Protocol) -> str | None:
        """Where there are no faces, or no weights."""
        if protocol.face_box is None:
            return f"face similarity needs aligned faces and {protocol.id} has none"
        try:
            self.files()
        except MissingDataError:  # its sentence may name a folder of this machine, and records travel
            why = "which are not here or damaged; `privbench weights ls` says what to do"
            return f"face similarity needs the weights of {self.embedder}, {why}"
        return None

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `face_similarity`, for class tasks with one value per class."""
        paired = "PairedReconstructions" in evidence.items
        return {"face_similarity": (self._paired if paired else self._nearest)(evidence, judges)}

    @property
    def _network(self) -> str:
        return f"faces are compared by {self.embedder}; the paper's network is OpenFace, layer 3"

    def _paired(self, evidence: Evidence, judges: Judges) -> Score:
        """Each reconstruction beside its original."""
        rebuilt, images = pairs(evidence)
        if len(images) == 0:
            return Score(value=None, reason="there are no reconstructions")
        found, private = (judges.embeddings(self.embedder, x) for x in (rebuilt, images.pixels))
        reason = not_finite(found, "embeddings") or not_finite(private, "embeddings")
        if reason:
            return Score(value=None, n=len(images), reason=reason)
        other = unrelated(kinds(images))
        chance = None if other is None else cosine(found, private[other])
        return summary(cosine(found, private), images, evidence.protocol, (-1, 1), chance, (self._network,))

    def _nearest(self, evidence: Evidence, judges: Judges) -> Score:
        """Each reconstruction beside the nearest private training image of its class."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        shape, labels = tuple(found.pixels.shape[:3]), found.labels.cpu()
        if not int(np.prod(shape)):
            return Score(value=None, reason="there are no reconstructions")
        embedded = judges.embeddings(self.embedder, found.pixels.flatten(0, 2))
        private = private_embeddings(evidence.private("private_train"), labels, judges, self.embedder)
        reason = not_finite(embedded, "embeddings")
        reason = reason or next((r for part in private if (r := not_finite(part, "embeddings"))), None)
        if reason:
            return Score(value=None, n=int(np.prod(shape)), reason=reason)
        faces, classes = unit(embedded).reshape(*shape, -1), [unit(part) for part in private]
        values = np.stack([_maximum(faces[:, :, k], part) for k, part in enumerate(classes)], 2)
        other = unrelated(labels.numpy())
        chance = None
        if other is not None:
            chance = np.stack([_maximum(faces[:, :, k], classes[place]) for k, place in enumerate(other)], 2)
        count = sum(map(len, private))
        note = f"a reconstruction is compared with the nearest of {count / len(private):.1f} private images on average"
        return over_labels(values, chance, (-1, 1), self.resamples, self.seed, (self._network, note))


def _maximum(faces: Values, private: Values) -> Values:
    """The largest cosine of each face `R S D` with unit rows `M D`, NaN where there are none."""
    if len(private) == 0:
        return np.full(faces.shape[:2], np.nan)
    largest: Values = np.clip(faces @ private.T, -1, 1).max(2)
    return largest
