"""Feature-level attack: estimate the features of another network, such as a face verifier, from latents."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..benchmark.access.views import FeaturesView, View
from ..benchmark.contracts import FeatureAttack, Prior
from ..benchmark.core.config import StageKind, UsedNetwork, setting
from ..benchmark.core.evidence import FeatureEstimates, Images, Request
from ..benchmark.core.seeds import derive
from ..benchmark.networks.factory import build_embedder
from ..benchmark.training.batches import Batches
from ..benchmark.training.context import Context
from ..benchmark.training.optimisation import update
from ._inversion import adam, cpu_state, load_frozen, map_latents

#: A feature map is averaged to at most this side length before it is flattened.
_SIDE = 4


class FeatureRegression(FeatureAttack):
    """Regress another network's features from latents.

    The attack learns a map M from latents Z to the features C(X) of a network that recognises the private attribute,
    `min_M mean ||M(Z) - C(X)||^2` on public images (Eq. 10). M has two linear layers with a ReLU between them. C is a
    face embedder, or HOG where the images do not show faces. C(X) has unit length.

    References:
        Xiao, Tsai, Sohn, Chandraker, Yang: Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations, AAAI 2020, Eq. 10. https://arxiv.org/abs/1911.10143

    Note:
        The paper does not state M's architecture and training. Here: 1024 hidden units, Adam (betas 0.9, 0.999),
        1e-3, 64 images, 50 epochs of the public images; feature maps are first averaged to at most 4 x 4.

    Note:
        C is OpenFace in the paper, whose weights exist only for Torch 7; the default here is FaceNet trained on
        VGGFace2.
    """

    yields = "FeatureEstimates"
    tasks = frozenset({"classes", "attributes"})
    prior = "target"
    decreasing_losses: ClassVar[Mapping[str, str]] = {"regression": "distance"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mnist": {"embedder": "hog"}, "cifar10": {"embedder": "hog"}}

    embedder: str = setting("facenet_vggface2", "the network C, a name in `privbench list embedders`")
    hidden: int = setting(1024, "hidden units of M", smoke=64, quick=256, ge=1)
    epochs: int = setting(50, "passes over the public images", ge=1, stages=("prior",))
    max_steps: int | None = setting(
        None, "largest number of training steps; none means no cap", smoke=20, quick=300, ge=1, stages=("prior",)
    )
    batch_size: int = setting(64, "public images per step", smoke=8, quick=32, ge=1, stages=("prior",))
    learning_rate: float = setting(1e-3, "step size of Adam", gt=0, stages=("prior",))

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        """The network C."""
        return (("embedder", self.embedder),) if stage in (None, "prior") else ()

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train M on public images."""
        assert isinstance(view, FeaturesView)
        batches = Batches(public, self.batch_size, derive(context.seed, "regression"), device=context.device)
        embedder = build_embedder(self.embedder).to(context.device)

        def true_features(x: Tensor) -> Tensor:
            with torch.no_grad():
                return embedder.embed(x, context.protocol)

        first = batches.at(0)[0]
        with context.seeded("initialise"):
            latent, size = view.features(first[:0]).shape[1:], true_features(first[:1]).shape[1]
            regressor = _build_regressor(latent, self.hidden, size).to(context.device)
        optimizer = adam(regressor, self.learning_rate, (0.9, 0.999), context.device)
        steps = self.epochs * batches.steps_per_epoch
        steps = min(steps, self.max_steps or steps)

        def step(i: int, _: torch.Generator) -> dict[str, Tensor]:
            x = batches.at(i)[0]
            loss = (regressor(view.features(x)) - true_features(x)).square().sum(1).mean()
            update(optimizer, loss)
            return {"distance": loss.detach()}

        context.loop("regression", steps, {"regressor": regressor, "optimizer": optimizer}, step)
        return {"regressor": cpu_state(regressor)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> FeatureEstimates:
        """Estimate C(X) from every observed latent Z."""
        assert request.encodings is not None
        assert request.items is not None
        size = list(prior["regressor"].values())[-1].shape[0]
        regressor = _build_regressor(request.encodings.shape[1:], self.hidden, size)
        regressor = load_frozen(regressor, prior["regressor"], context.device)
        return FeatureEstimates(map_latents(lambda z: regressor(z).cpu(), request.encodings, context), request.items)


def _build_regressor(latent: Sequence[int], hidden: int, size: int) -> nn.Sequential:
    """M, from latents `N ...` to `N size`."""
    width, pooling = latent[0], []
    if len(latent) > 1:
        side = min(_SIDE, *latent[1:])
        width, pooling = math.prod((width, *(side for _ in latent[1:]))), [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    return nn.Sequential(*pooling, nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, size))
