"""The two-player training of adversarial reconstruction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..benchmark.core.evidence import Images
from ..benchmark.core.seeds import derive
from ..benchmark.networks import catalog
from ..benchmark.networks.network import Network
from ..benchmark.training.batches import Batches
from ..benchmark.training.context import Context, frozen, learning_rate, make_optimizer, task_loss, update
from ..benchmark.training.decoder_adversary import Adversary, pixel_distance

if TYPE_CHECKING:
    from .adversarial_reconstruction import AdversarialReconstruction


def play(defense: AdversarialReconstruction, private: Images, context: Context) -> Network:
    """Train a target against its simulated adversary, and leave it in evaluation mode."""
    game = _Game(defense, private, context)
    steps = defense.recipe.epochs * game.batches.steps_per_epoch
    steps = min(steps, defense.recipe.max_steps or steps)
    context.loop("target", steps, game.state, game.step)
    context.notes["steps"] = steps
    context.notes["epochs"] = steps / game.batches.steps_per_epoch
    return game.network.eval()


class _Game:
    """Encoder and head on one side, decoder and discriminator on the other."""

    def __init__(self, defense: AdversarialReconstruction, private: Images, context: Context) -> None:
        self._defense, protocol, device = defense, context.protocol, context.device
        self.batches = context.batches("target", private, defense.recipe.batch_size)
        self._public: Batches | None = None
        if defense.simulated_on == "public":
            assert context.public is not None
            size = defense.recipe.batch_size
            self._public = Batches(context.public(), size, derive(context.seed, "public"), device=device)
        with context.seeded("initialise"):
            self.network = defense.network(protocol).to(device).train()
        self._layer = defense.layer or self.network.layers[-1]
        perceptual = None
        if defense.lambda_2 or defense.mu_2:
            perceptual = catalog.perceptual(defense.perceptual).to(device).eval().requires_grad_(False)
        with torch.no_grad():
            latent = _shape(self.network, self._layer, protocol.image, device)
        with context.seeded("initialise adversary"):
            self._adversary = Adversary(
                latent,
                protocol.image,
                max_channels=defense.max_channels,
                learning_rate=defense.adversary_learning_rate,
                mu_1=defense.mu_1,
                mu_2=defense.mu_2,
                perceptual=perceptual,
                device=device,
            )
        self._optimizer = make_optimizer(defense.recipe, self.network)
        self.state = {"network": self.network, "optimizer": self._optimizer, **self._adversary.state}

    def step(self, i: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The adversary's update, then the protector's (Eq. 9)."""
        defense = self._defense
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(defense.recipe, i // self.batches.steps_per_epoch)
        x, y = self.batches.at(i)
        assert y is not None
        latents, logits = self.network.trace(x)
        z = latents[self._layer]
        known = self._seen(i, z, x)
        for _ in range(defense.adversary_steps):
            self._adversary.step(*known)
        losses = {"loss": task_loss(logits, y)}
        total = losses["loss"]
        with frozen(self._adversary.decoder):
            reconstruction = self._adversary.decoder(z)
            losses["pixels"] = pixel_distance(reconstruction, x).mean()
            total = total - defense.lambda_1 * losses["pixels"]
            if defense.lambda_2:
                losses["perceptual"] = self._adversary.perceptual_distance(reconstruction, x)
                total = total - defense.lambda_2 * losses["perceptual"]
        update(self._optimizer, total)
        return {name: value.detach() for name, value in losses.items()}

    def _seen(self, i: int, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and images that the adversary learns from."""
        if self._public is None:
            return z.detach(), x
        public = self._public.at(i)[0]
        with torch.no_grad(), _evaluating(self.network):
            return self.network.encode(public, self._layer), public


def _shape(network: Network, layer: str, image: tuple[int, int, int], device: torch.device) -> tuple[int, ...]:
    """Shape of one latent."""
    with _evaluating(network):
        return tuple(network.encode(torch.zeros(1, *image, device=device), layer).shape[1:])


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    network.eval()
    try:
        yield
    finally:
        network.train()
