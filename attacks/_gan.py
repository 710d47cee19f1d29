"""Base of the GANs that attacks train on public images."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ..benchmark.training.batches import Batches
from ._inversion import adam

G = TypeVar("G", bound=nn.Module)
D = TypeVar("D", bound=nn.Module)


class GAN(ABC, Generic[G, D]):
    """Generator and discriminator with their optimisers; a subclass defines one update of each.

    Args:
        generator: G, untrained.
        discriminator: D, untrained.
        batches: public images.
        latent: dimension of z.
        learning_rate: step size of Adam for both networks.
        betas: decay rates of Adam for both networks.
        device: where both networks train.
        n_critic: discriminator updates per generator update.
    """

    def __init__(
        self,
        generator: G,
        discriminator: D,
        batches: Batches,
        *,
        latent: int,
        learning_rate: float,
        betas: tuple[float, float],
        device: torch.device,
        n_critic: int = 1,
    ) -> None:
        self.generator = generator.to(device)
        self.discriminator = discriminator.to(device)
        self.batches = batches
        self.generator_optimizer = adam(self.generator, learning_rate, betas, device)
        self.discriminator_optimizer = adam(self.discriminator, learning_rate, betas, device)
        self._latent, self._n_critic, self._device = latent, n_critic, device

    @property
    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Networks and optimisers, which hold everything that a step changes."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def step(self, i: int, source: torch.Generator) -> dict[str, Tensor]:
        """Update the discriminator and, at each `n_critic`-th step, the generator; return the losses by name."""
        real, _ = self.batches.at(i)
        losses = self.update_discriminator(i, real, source)
        if (i + 1) % self._n_critic == 0:
            losses["generator"] = self.update_generator(i, real, source)
        return losses

    def sample_latents(self, count: int, source: torch.Generator) -> Tensor:
        """Draws of N(0, I), `count D`."""
        return torch.randn(count, self._latent, generator=source, device=self._device)

    @abstractmethod
    def update_discriminator(self, i: int, real: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        """Train the discriminator on the batch `real` of step `i`, `N C H W` in [0, 1]; return its losses by name."""

    @abstractmethod
    def update_generator(self, i: int, real: Tensor, source: torch.Generator) -> Tensor:
        """Train the generator against the discriminator; return its loss."""
