"""The feature-level attack: regress the features of another network, such as a face verifier, from latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..benchmark.access.views import FeaturesView, View
from ..benchmark.contracts import FeatureAttack, Prior
from ..benchmark.core.config import StageKind, Task, setting
from ..benchmark.core.evidence import FeatureEstimates, Images, Request
from ..benchmark.core.seeds import derive
from ..benchmark.networks import catalog
from ..benchmark.networks.weights.named import files_of
from ..benchmark.training.batches import Batches
from ..benchmark.training.optimisation import update
from ._inversion import adam, restored, weights

if TYPE_CHECKING:
    from ..benchmark.training.context import Context

#: A map is averaged down to at most so many positions a side before it is flattened.
_SIDE = 4


class FeatureRegression(FeatureAttack):
    """Learns a map M from latents Z to the features C(X) of a network that recognises what is private.

    `min_M mean ||M(Z) - C(X)||^2` on public images (Eq. 10). M is a hidden layer with ReLU between two linear layers; C
    is a face embedder, or HOG where the images are no faces. C(X) has unit length.

    References:
        Xiao, Tsai, Sohn, Chandraker, Yang: Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations, AAAI 2020, Eq. 10. https://arxiv.org/abs/1911.10143

    Note:
        M's architecture and its training are not published. Here: 1024 hidden units, Adam (betas 0.9, 0.999), 1e-3, 64
        images, 50 passes over the public images; maps are first averaged to at most 4 x 4 positions.

    Note:
        C is OpenFace in the paper, whose weights exist for Torch 7 only; the default is FaceNet trained on VGGFace2.
    """

    yields: ClassVar[str] = "FeatureEstimates"
    tasks: ClassVar[frozenset[Task]] = frozenset({"classes", "attributes"})
    prior: ClassVar[Literal["none", "public", "target"]] = "target"
    decreasing_losses: ClassVar[Mapping[str, str]] = {"regression": "distance"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mnist": {"embedder": "hog"}, "cifar10": {"embedder": "hog"}}

    embedder: str = setting("facenet_vggface2", "the network C, in `privbench list embedders`")
    hidden: int = setting(1024, "hidden units of M", smoke=64, quick=256, ge=1)
    epochs: int = setting(50, "passes over the public images", ge=1, stages=("prior",))
    max_steps: int | None = setting(
        None, "training steps at most; none means no cap", smoke=20, quick=300, ge=1, stages=("prior",)
    )
    batch_size: int = setting(64, "public images per step", smoke=8, quick=32, ge=1, stages=("prior",))
    learning_rate: float = setting(1e-3, "step size of Adam", gt=0, stages=("prior",))

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        """The weights of C."""
        return files_of("embedder", self.embedder) if stage in (None, "prior") else {}

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train M on public images."""
        assert isinstance(view, FeaturesView)
        batches = Batches(public, self.batch_size, derive(context.seed, "regression"), device=context.device)
        embedder = catalog.embedder(self.embedder).to(context.device).eval()

        def known(x: Tensor) -> Tensor:
            with torch.no_grad():
                return embedder.embed(x, context.protocol)

        first = batches.at(0)[0]
        with context.seeded("initialise"):
            regressor = _regressor(view.features(first[:0]).shape[1:], self.hidden, known(first[:1]).shape[1])
            regressor.to(context.device)
        optimizer = adam(regressor, self.learning_rate, (0.9, 0.999), context.device)
        steps = self.epochs * batches.steps_per_epoch
        steps = min(steps, self.max_steps or steps)

        def step(i: int, _: torch.Generator) -> dict[str, Tensor]:
            x = batches.at(i)[0]
            loss = (regressor(view.features(x)) - known(x)).square().sum(1).mean()
            update(optimizer, loss)
            return {"distance": loss.detach()}

        context.loop("regression", steps, {"regressor": regressor, "optimizer": optimizer}, step)
        return {"regressor": weights(regressor)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> FeatureEstimates:
        """Estimate C(X) from every observed latent."""
        assert request.encodings is not None
        assert request.items is not None
        size = list(prior["regressor"].values())[-1].shape[0]
        regressor = _regressor(request.encodings.shape[1:], self.hidden, size)
        regressor = restored(regressor, prior["regressor"], context.device)
        with torch.no_grad():
            parts = torch.split(request.encodings, context.chunk_size(256))
            found = [regressor(z.to(context.device)).cpu() for z in parts]
        return FeatureEstimates(torch.cat(found), request.items)


def _regressor(latent: Sequence[int], hidden: int, size: int) -> nn.Sequential:
    """M, from latents `N ...` to `N size`."""
    side = 1 if len(latent) == 1 else min(_SIDE, *latent[1:])
    shrink: list[nn.Module] = [] if len(latent) == 1 else [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    width = math.prod((latent[0], *(side for _ in latent[1:])))
    return nn.Sequential(*shrink, nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, size))
