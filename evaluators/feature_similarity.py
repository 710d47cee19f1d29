"""Similarity of estimated and true features."""

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition
from ..benchmark.core.evidence import Evidence, FeatureEstimates, Score
from ..benchmark.errors import InvalidConfigurationError
from ..benchmark.networks.judges import Judges
from ._cosine import cosine
from ._pairs import related_groups, score_images, unrelated
from ._reasons import not_finite


class FeatureSimilarity(Evaluator):
    """Cosine similarity of estimated and true features.

    `feature_similarity = 1/N sum_i cos(M(z_i), C(x_i))`, with the features M(z) that an attack estimates from a latent
    and the network C in the attack's field `embedder`. The interval is Student-t over people where they are known, else
    over images. `chance` is the mean cosine with C(x) of an image of another identity or class, which is not 0.

    References:
        T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020,
        Eq. 10.

    Note:
        In the paper C is OpenFace's face verification network; here it is the network of the attack, which the note
        names, so values are comparable only for the same network.
    """

    needs = ("FeatureEstimates",)
    scores = (
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
        """Compute `feature_similarity`, for class tasks with the mean of every class."""
        found: FeatureEstimates = evidence.get(FeatureEstimates)
        name = evidence.attack.get("embedder")
        if not isinstance(name, str):
            raise InvalidConfigurationError(
                f"expected the attack to name its network in a field 'embedder', got {name!r}; add that field to it"
            )
        images = evidence.private("private_test").select(found.items.cpu())
        if len(images) == 0:
            return {"feature_similarity": Score(value=None, reason="there are no estimates")}
        true, estimated = judges.embeddings(name, images.pixels), found.features.cpu()
        if true.shape != estimated.shape:
            ours, theirs = (" x ".join(map(str, x.shape)) for x in (estimated, true))
            raise InvalidConfigurationError(
                f"expected estimates to be {theirs} like the features of {name!r}, got {ours}"
            )
        reason = not_finite(estimated, "estimates") or not_finite(true, "features")
        if reason:
            return {"feature_similarity": Score(value=None, n=len(images), reason=reason)}
        other = unrelated(related_groups(images))
        chance = None if other is None else cosine(estimated, true[other])
        notes = (f"the features are those of {name}; the paper's are those of OpenFace",)
        score = score_images(cosine(estimated, true), images, evidence.protocol, (-1, 1), chance, notes)
        return {"feature_similarity": score}
