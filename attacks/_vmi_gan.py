"""Training of the GANs that VMI attacks with: DCGAN for small images, StyleGAN2 for faces."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmark.training.batches import Batches
from ..benchmark.training.optimisation import frozen, update
from ._gan import GAN
from .networks.dcgan import DCDiscriminator, DCGenerator
from .networks.stylegan import StyleDiscriminator, StyleGenerator

#: The half-life of the averaged weights is at most this share of the images that the GAN has seen.
AVERAGE_SHARE = 0.05


class NonSaturatingGAN(GAN[DCGenerator | StyleGenerator, DCDiscriminator | StyleDiscriminator]):
    """Generator and discriminator under the non-saturating loss, which is also DCGAN's binary cross-entropy.

        L_D = mean softplus(-D(x)) + mean softplus(D(G(z))),   L_G = mean softplus(-D(G(z)))

    Args:
        generator: G, untrained.
        discriminator: D, untrained.
        batches: public images.
        learning_rate: step size of Adam for both networks.
        betas: decay rates of Adam for both networks.
        device: where both networks train.
        instance_noise: standard deviation of Gaussian noise on the discriminator's input, in units of [-1, 1].
        r1_weight: gamma of the penalty gamma / 2 mean ||grad D(x)||^2 on real images.
        r1_interval: steps between two penalties, and the factor of each.
        style_mixing: probability that two z share the layers of an image.
        average_images: half-life of the generator's averaged weights, in images; 0 for no average.
    """

    def __init__(
        self,
        generator: DCGenerator | StyleGenerator,
        discriminator: DCDiscriminator | StyleDiscriminator,
        batches: Batches,
        *,
        learning_rate: float,
        betas: tuple[float, float],
        device: torch.device,
        instance_noise: float,
        r1_weight: float,
        r1_interval: int,
        style_mixing: float,
        average_images: int,
    ) -> None:
        super().__init__(
            generator,
            discriminator,
            batches,
            latent=generator.latent,
            learning_rate=learning_rate,
            betas=betas,
            device=device,
        )
        self.average = copy.deepcopy(self.generator)
        self._instance_noise, self._r1_weight, self._r1_interval = instance_noise, r1_weight, r1_interval
        self._style_mixing, self._average_images = style_mixing, average_images

    @property
    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Networks, averaged generator and optimisers, which hold everything that a step changes."""
        return {**super().state, "average": self.average}

    def update_discriminator(self, i: int, real: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        """Train the discriminator on real and generated images; every `r1_interval` steps, also on the R1 penalty."""
        with torch.no_grad():
            fake = self._generate(len(real), source)
        real_logits = self.discriminator(self._add_noise(real, source))
        fake_logits = self.discriminator(self._add_noise(fake, source))
        loss = functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()
        update(self.discriminator_optimizer, loss)
        losses = {"discriminator": loss.detach()}
        if self._r1_weight and i % self._r1_interval == 0:
            # gamma / 2 times the square in [-1, 1], where gradients are half as large as in [0, 1].
            penalty = r1(self.discriminator, real) / 8
            update(self.discriminator_optimizer, self._r1_weight * self._r1_interval * penalty)
            losses["r1"] = penalty.detach()
        return losses

    def update_generator(self, i: int, real: Tensor, source: torch.Generator) -> Tensor:
        """Train the generator, then move the averaged weights towards its weights."""
        with frozen(self.discriminator):
            fake = self._add_noise(self._generate(len(real), source), source)
            loss = functional.softplus(-self.discriminator(fake)).mean()
            update(self.generator_optimizer, loss)
        self._update_average((i + 1) * len(real), len(real))
        return loss.detach()

    def _generate(self, count: int, source: torch.Generator) -> Tensor:
        z = self.sample_latents(count, source)
        if isinstance(self.generator, StyleGenerator):
            z = self._mix_styles(z, self.generator.layers, source)
        images: Tensor = self.generator(z)
        return images

    def _mix_styles(self, z: Tensor, layers: int, source: torch.Generator) -> Tensor:
        """Latents `N L D` whose layers from a random one on take, with probability `style_mixing`, another z."""
        other = self.sample_latents(len(z), source)
        mixed = torch.rand((), generator=source, device=self._device) < self._style_mixing
        first = torch.randint(1, layers, (), generator=source, device=self._device)
        replaced = (mixed & (torch.arange(layers, device=self._device) >= first))[:, None]
        return torch.where(replaced, other[:, None], z[:, None])

    def _add_noise(self, x: Tensor, source: torch.Generator) -> Tensor:
        if self._instance_noise == 0:
            return x
        # The published noise is added in [-1, 1], where it is twice as large as in [0, 1].
        return x + self._instance_noise / 2 * torch.randn(x.shape, generator=source, device=x.device)

    @torch.no_grad()
    def _update_average(self, shown: int, batch: int) -> None:
        """Move the averaged weights towards the generator's; copy buffers, such as moments of batch norm."""
        half_life = min(self._average_images, AVERAGE_SHARE * shown)
        keep = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        for mean, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(weight, 1 - keep)
        for copied, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            copied.copy_(buffer)


def r1(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Mean over images of ||grad_x D(x)||^2, x in [0, 1], differentiable in the discriminator."""
    x = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
