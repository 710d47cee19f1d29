"""Decoder attack: reconstruct images from features."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from ..benchmark.access.views import FeaturesView, View
from ..benchmark.contracts import FeatureAttack, Prior
from ..benchmark.core.config import StageKind, UsedNetwork, setting
from ..benchmark.core.evidence import Images, PairedReconstructions, Request
from ..benchmark.core.seeds import derive
from ..benchmark.networks.decoders import Decoder
from ..benchmark.networks.factory import build_perceptual
from ..benchmark.training.batches import Batches
from ..benchmark.training.context import Context
from ..benchmark.training.decoder_adversary import Adversary
from ._inversion import cpu_state, load_frozen, map_latents, quantise


class DecoderAttack(FeatureAttack):
    """Decode images from features with a trained decoder.

    The decoder is trained on public images x and their latents Z = Enc(x) from the target,
    `min_Dec L_p + mu_1 L_adv + mu_2 L_perc` (Eqs. 1 to 5); then `x^ = Dec(Z)` for each observed Z of a private image.
    Black-box: the attack queries the encoder and needs no gradient of it.

    References:
        Xiao, Tsai, Sohn, Chandraker, Yang: Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations, AAAI 2020. https://arxiv.org/abs/1911.10143

    Note:
        The paper does not state the optimiser, step size, batch size and training length. Here: Adam (betas 0.5,
        0.999), 1e-3, 64 images, 50 epochs of the public images.

    Note:
        The paper does not state the values of mu_1 and mu_2 where they are not 0; the tables here use 1.

    Note:
        The budgets `smoke` and `quick` make the decoder narrower and train it for fewer steps.
    """

    yields = "PairedReconstructions"
    tasks = frozenset({"classes", "attributes"})
    prior = "target"
    decreasing_losses: ClassVar[Mapping[str, str]] = {"decoder": "pixels"}

    mu_1: float = setting(0.0, "weight of the adversarial loss", ge=0, stages=("prior",))
    mu_2: float = setting(0.0, "weight of the perceptual loss", ge=0, stages=("prior",))
    perceptual: str = setting("vgg16", "network of the perceptual loss, used if mu_2 is not 0", stages=("prior",))
    max_channels: int = setting(2048, "widest layer of the decoder", smoke=32, quick=256, ge=1)
    epochs: int = setting(50, "passes over the public images", ge=1, stages=("prior",))
    max_steps: int | None = setting(
        None, "largest number of training steps; none means no cap", smoke=20, quick=300, ge=1, stages=("prior",)
    )
    batch_size: int = setting(64, "public images per step", smoke=8, quick=32, ge=2, stages=("prior",))
    learning_rate: float = setting(1e-3, "step size of Adam", gt=0, stages=("prior",))

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        """The perceptual network, where it is used."""
        return (("perceptual", self.perceptual),) if self.mu_2 and stage in (None, "prior") else ()

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train the decoder on public images and their latents."""
        assert isinstance(view, FeaturesView)
        batches = Batches(public, self.batch_size, derive(context.seed, "decoder"), device=context.device)
        latent = view.features(batches.at(0)[0][:0]).shape[1:]
        with context.seeded("initialise"):
            adversary = Adversary(
                latent,
                context.protocol.image,
                max_channels=self.max_channels,
                learning_rate=self.learning_rate,
                mu_1=self.mu_1,
                mu_2=self.mu_2,
                perceptual=build_perceptual(self.perceptual).to(context.device) if self.mu_2 else None,
                device=context.device,
            )
        steps = self.epochs * batches.steps_per_epoch
        steps = min(steps, self.max_steps or steps)

        def step(i: int, _: torch.Generator) -> dict[str, Any]:
            x = batches.at(i)[0]
            return adversary.step(view.features(x), x)

        context.loop("decoder", steps, adversary.state, step)
        context.notes["decoder_steps"] = steps
        return {"decoder": cpu_state(adversary.decoder)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> PairedReconstructions:
        """Decode every observed latent."""
        assert request.encodings is not None
        assert request.items is not None
        decoder = Decoder(request.encodings.shape[1:], context.protocol.image, self.max_channels)
        decoder = load_frozen(decoder, prior["decoder"], context.device)
        pixels = map_latents(lambda z: quantise(decoder(z)), request.encodings, context)
        return PairedReconstructions(pixels, request.items)
