"""Decoder attack of Xiao et al. (Eqs. 1 to 5), trained by the attacker and simulated by their defense."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.classifiers.requirements import Image
from ..networks.decoders import Decoder, ImageDiscriminator
from ..networks.perceptual.perceptual import Perceptual
from .optimisation import update


def pixel_distance(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Compute L_p of each image (Eq. 1): the mean squared difference over pixels and channels, on a scale of [-1, 1].

    Args:
        reconstruction: `N C H W` in [0, 1].
        x: `N C H W` in [0, 1].

    Returns:
        `N`, in [0, 4].

    Note:
        The paper prints a squared norm and states neither a unit nor the size of the image. The mean makes weights
        independent of the size; the scale is that of the tanh at the end of the published decoder.
    """
    return 4 * (reconstruction - x).square().flatten(1).mean(1)


class Adversary:
    """A decoder with its losses: pixel distance and, optionally, a discriminator and a perceptual distance.

    `min_Dec L_p + mu_1 L_adv + mu_2 L_perc`, with `L_adv = mean log(1 - D(x^))` (Eq. 2) and
    `L_perc = mean ||g(x^) - g(x)||^2` (Eq. 4); `max_D mean log D(x) + log(1 - D(x^))`.

    Args:
        latent: shape of one Z.
        image: channels, height, width.
        max_channels: maximum number of channels in the decoder.
        learning_rate: of Adam, for decoder and discriminator.
        mu_1: weight of L_adv; 0 means no discriminator.
        mu_2: weight of L_perc; 0 means that training does not use `perceptual`.
        perceptual: g, or `None`.
        device: device of the networks.

    Note:
        Eq. 3 as printed swaps the terms of real and reconstructed images: its maximum would classify every
        reconstruction as real. With Eq. 2 only the standard order gives an adversarial game, so we use that.
    """

    def __init__(
        self,
        latent: Sequence[int],
        image: Image,
        *,
        max_channels: int,
        learning_rate: float,
        mu_1: float,
        mu_2: float,
        perceptual: Perceptual | None,
        device: torch.device,
    ) -> None:
        self.mu_1, self.mu_2 = mu_1, mu_2
        self.perceptual = perceptual
        self.decoder = Decoder(latent, image, max_channels).to(device)
        self._optimizer = _adam(self.decoder, learning_rate)
        self.state: dict[str, nn.Module | torch.optim.Optimizer] = {
            "decoder": self.decoder,
            "decoder_optimizer": self._optimizer,
        }
        if mu_1:
            self._discriminator = ImageDiscriminator(image).to(device)
            self._discriminator_optimizer = _adam(self._discriminator, learning_rate)
            self.state |= {
                "discriminator": self._discriminator,
                "discriminator_optimizer": self._discriminator_optimizer,
            }

    def step(self, z: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Update the discriminator, then the decoder, on latents `z` (constants) of images `x`.

        Returns:
            The decoder's losses, unweighted, by name.
        """
        reconstruction = self.decoder(z)
        losses = {"pixels": pixel_distance(reconstruction, x).mean()}
        total = losses["pixels"]
        if self.mu_1:
            losses["discriminator"] = self._train_discriminator(reconstruction.detach(), x)
            losses["adversarial"] = functional.logsigmoid(-self._discriminator(reconstruction)).mean()
            total = total + self.mu_1 * losses["adversarial"]
        if self.mu_2:
            losses["perceptual"] = self.perceptual_distance(reconstruction, x)
            total = total + self.mu_2 * losses["perceptual"]
        update(self._optimizer, total)
        return {name: value.detach() for name, value in losses.items()}

    def perceptual_distance(self, reconstruction: Tensor, x: Tensor) -> Tensor:
        """Compute L_perc, the mean over the images."""
        assert self.perceptual is not None
        return self.perceptual.distance(reconstruction, x).mean()

    def _train_discriminator(self, reconstruction: Tensor, x: Tensor) -> Tensor:
        real, fake = self._discriminator(x), self._discriminator(reconstruction)
        loss = -(functional.logsigmoid(real) + functional.logsigmoid(-fake)).mean()
        update(self._discriminator_optimizer, loss)
        return loss.detach()


def _adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=(0.5, 0.999))
