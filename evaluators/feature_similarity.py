"""Similarity of estimated and true features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, FeatureEstimates, Score
from ..benchmark.errors import InvalidConfigurationError
from ._cosine import cosine, not_finite
from ._pairs import kinds, summary, unrelated

if TYPE_CHECKING:
    from ..benchmark.networks.judges import Judges


class FeatureSimilarity(Evaluator):
    """Cosine of the features that an attack estimates from latents with the true features of the images.

    `feature_similarity = 1/N sum_i cos(M(z_i), C(x_i))`, with the network C that the attack's field `embedder` names.
    Intervals and spreads are those of `_pairs`; `chance` is the mean cosine with C of an image of another identity or
    class: cosines of embeddings do not begin at 0.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020,
        Eq. 10.

    Note:
        C of the paper is OpenFace's face verification network; here it is the attack's, which the note names, so
        values compare only where it is the same.
    """

    needs: ClassVar[tuple[str, ...]] = ("FeatureEstimates",)
    scores: ClassVar[tuple[Definition, ...]] = (
        Definition(
            name="feature_similarity",
            title="Feature Sim.",
            measures="leakage",
            better="lower",
            unit="similarity",
            formula="cosine of M(Z), the attack's estimate from the latent Z of an image, and C(X), the features of "
            "that image in the network that the attack names; mean over images",
            range="[-1, 1]",
        ),
    )

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """The score `feature_similarity`, for class tasks with the mean of every class."""
        found: FeatureEstimates = evidence.get(FeatureEstimates)
        name = evidence.attack.get("embedder")
        if not isinstance(name, str):
            raise InvalidConfigurationError(
                f"expected the attack to name its network in a field 'embedder', got {name!r}; its author must add it"
            )
        images = evidence.private("private_test").select(found.items.cpu())
        if len(images) == 0:
            return {"feature_similarity": Score(value=None, reason="there are no estimates")}
        true, estimated = judges.embeddings(name, images.pixels), found.features.cpu()
        if true.shape != estimated.shape:
            ours, theirs = (" x ".join(map(str, x.shape)) for x in (estimated, true))
            raise InvalidConfigurationError(f"expected estimates to be {theirs} as {name!r} has features, got {ours}")
        reason = not_finite(estimated, "estimates") or not_finite(true, "features")
        if reason:
            return {"feature_similarity": Score(value=None, n=len(images), reason=reason)}
        other = unrelated(kinds(images))
        chance = None if other is None else cosine(estimated, true[other])
        notes = (f"the features are those of {name}; the paper's are those of OpenFace",)
        score = summary(cosine(estimated, true), images, evidence.protocol, (-1, 1), chance, notes)
        return {"feature_similarity": score}
