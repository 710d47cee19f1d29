"""The GANs that VMI attacks with: DCGAN for small images, StyleGAN2 for faces; both trained on public images alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmark.training.batches import Batches
from ..benchmark.training.optimisation import frozen, update
from ._inversion import adam
from .networks.dcgan import DCDiscriminator, DCGenerator
from .networks.stylegan import StyleDiscriminator, StyleGenerator

#: The average of the generator's weights looks back over this share of what has been shown at most.
AVERAGE_SHARE = 0.05


@dataclass(frozen=True)
class Design:
    """Kind and size of the networks.

    Args:
        kind: `dcgan` or `stylegan`.
        image: channels, height, width.
        latent: D.
        width: ngf = ndf of a DCGAN.
        spectral: spectral normalisation in a DCGAN's discriminator.
        channel_base: of a StyleGAN2; a layer at resolution r has channel_base / r channels,
        channel_max: but not more than this.
        mapping_layers: of a StyleGAN2.
    """

    kind: Literal["dcgan", "stylegan"]
    image: tuple[int, int, int]
    latent: int
    width: int
    spectral: bool
    channel_base: int
    channel_max: int
    mapping_layers: int

    def generator(self) -> DCGenerator | StyleGenerator:
        """An untrained generator."""
        if self.kind == "dcgan":
            return DCGenerator(self.image, self.latent, self.width)
        return StyleGenerator(self.image, self.latent, self.channel_base, self.channel_max, self.mapping_layers)

    def discriminator(self) -> DCDiscriminator | StyleDiscriminator:
        """An untrained discriminator."""
        if self.kind == "dcgan":
            return DCDiscriminator(self.image, self.width, spectral=self.spectral)
        return StyleDiscriminator(self.image, self.channel_base, self.channel_max)


@dataclass(frozen=True)
class Schedule:
    """How the GAN is trained.

    Args:
        learning_rate: of Adam, for both networks.
        betas: of Adam.
        instance_noise: standard deviation of Gaussian noise on what the discriminator sees, in units of [-1, 1].
        r1_weight: gamma of the penalty gamma / 2 mean ||grad D(x)||^2 on real images,
        r1_interval: taken every so many steps, times this number.
        style_mixing: probability that two z share the layers of an image.
        average_images: half-life of the average of the generator's weights, in images; 0 for no average.
    """

    learning_rate: float
    betas: tuple[float, float]
    instance_noise: float
    r1_weight: float
    r1_interval: int
    style_mixing: float
    average_images: int


class AdversarialPair:
    """Generator and discriminator under the non-saturating loss, which is also DCGAN's binary cross-entropy.

        L_D = mean softplus(-D(x)) + mean softplus(D(G(z))),   L_G = mean softplus(-D(G(z)))

    Args:
        design: of the networks.
        schedule: of the training.
        batches: of public images.
        device: where both train; the caller seeds PyTorch's global generator for the initial weights.
    """

    def __init__(self, design: Design, schedule: Schedule, batches: Batches, device: torch.device) -> None:
        self._schedule, self._batches, self._device = schedule, batches, device
        self.generator = design.generator().to(device)
        self.discriminator = design.discriminator().to(device)
        self.average = copy.deepcopy(self.generator)
        self._generator_optimizer = adam(self.generator, schedule.learning_rate, schedule.betas, device)
        self._discriminator_optimizer = adam(self.discriminator, schedule.learning_rate, schedule.betas, device)

    @property
    def state(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """Everything that a step changes."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
            "generator_optimizer": self._generator_optimizer,
            "discriminator_optimizer": self._discriminator_optimizer,
        }

    def step(self, i: int, source: torch.Generator) -> dict[str, Tensor]:
        """One step of the discriminator and one of the generator."""
        real, _ = self._batches.at(i)
        losses = {"discriminator": self._discriminate(real, source)}
        if self._schedule.r1_weight and i % self._schedule.r1_interval == 0:
            losses["r1"] = self._flatten(real)
        with frozen(self.discriminator):
            fake = self._noisy(self._fake(len(real), source), source)
            loss = functional.softplus(-self.discriminator(fake)).mean()
            update(self._generator_optimizer, loss)
        self._follow((i + 1) * len(real), len(real))
        return {**losses, "generator": loss.detach()}

    def _discriminate(self, real: Tensor, source: torch.Generator) -> Tensor:
        with torch.no_grad():
            fake = self._fake(len(real), source)
        said_real = self.discriminator(self._noisy(real, source))
        said_fake = self.discriminator(self._noisy(fake, source))
        loss = functional.softplus(-said_real).mean() + functional.softplus(said_fake).mean()
        update(self._discriminator_optimizer, loss)
        return loss.detach()

    def _flatten(self, real: Tensor) -> Tensor:
        # gamma / 2 times the square in [-1, 1], where gradients are half as large as in [0, 1].
        penalty = r1(self.discriminator, real) / 8
        update(self._discriminator_optimizer, self._schedule.r1_weight * self._schedule.r1_interval * penalty)
        return penalty.detach()

    def _fake(self, count: int, source: torch.Generator) -> Tensor:
        shape = (count, self.generator.latent)
        z = torch.randn(shape, generator=source, device=self._device)
        if not isinstance(self.generator, StyleGenerator):
            plain: Tensor = self.generator(z)
            return plain
        other = torch.randn(shape, generator=source, device=self._device)
        mixed = torch.rand((), generator=source, device=self._device) < self._schedule.style_mixing
        border = torch.randint(1, self.generator.layers, (), generator=source, device=self._device)
        layer = torch.arange(self.generator.layers, device=self._device)
        second = (mixed & (layer >= border))[:, None]
        mixture: Tensor = self.generator(torch.where(second, other[:, None], z[:, None]))
        return mixture

    def _noisy(self, x: Tensor, source: torch.Generator) -> Tensor:
        if self._schedule.instance_noise == 0:
            return x
        # The published noise is added in [-1, 1], where it is twice as large as in [0, 1].
        noise = torch.randn(x.shape, generator=source, device=x.device)
        return x + self._schedule.instance_noise / 2 * noise

    @torch.no_grad()
    def _follow(self, shown: int, batch: int) -> None:
        """Move the average of the weights towards the generator's; buffers, such as moments, are copied."""
        window = min(self._schedule.average_images, AVERAGE_SHARE * shown)
        keep = 0.5 ** (batch / window) if window > 0 else 0.0
        for mean, now in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)
        for kept, fresh in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(fresh)


def r1(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Mean over images of ||grad_x D(x)||^2, x in [0, 1], differentiable in the discriminator."""
    x = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
