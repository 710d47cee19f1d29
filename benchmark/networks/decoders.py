"""Decoders from a latent at any cut layer to an image, and the discriminator that makes them sharper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from .classifiers.requirements import Image

#: Channels before the image and after each halving above it, as in Figure 6: 64, 256, 512, 1024, 2048.
_WIDTHS = (64, 256, 512, 1024, 2048)
#: A flat latent becomes a map of about so many pixels a side, as ResNet-50's last one.
_TOP = 7


class Decoder(nn.Module):
    """Mirrors an encoder: from a latent Z at a cut layer to the image, doubling height and width.

    A flat Z goes through two linear layers with ReLU (one where Z is as wide as the hidden layer) to a map of at most
    7 x 7 positions; a map starts where it is. Each doubling is a 3 x 3 transposed convolution of stride 2 with batch
    norm and ReLU, the last one has three (or one) channels and a sigmoid. Before the image there are 64 channels, then
    256, 512, 1024 and 2048 going up, so that for ResNet-50 at 224 x 224 this is Figure 6.

    Args:
        latent: shape of one Z, `(D,)` or `(C, h, w)`.
        image: channels, height, width.
        max_channels: where the mirror would have more, it has these.

    References:
        Xiao, Tsai, Sohn, Chandraker, Yang. Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations. AAAI 2020, Fig. 6. https://arxiv.org/abs/1911.10143

    Note:
        The paper ends in tanh on images in [-1, 1]; a sigmoid on images in [0, 1] is the same function of half the
        last layer's output.

    Note:
        Figure 6 is for ResNet-50 at 224 x 224. A map whose size is not the image's over a power of two is enlarged
        bilinearly to the next one that is, and what is more than the image is cut off. Where there would be one layer
        or none, a convolution with 64 channels comes first.

    Example:
        >>> import torch
        >>> Decoder((1000,), (3, 64, 64), max_channels=32)(torch.zeros(2, 1000)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(self, latent: Sequence[int], image: Image, max_channels: int = 2048) -> None:
        super().__init__()
        channels, height, width = image
        self._image = (height, width)
        flat = len(latent) == 1
        doublings = _doublings(_TOP if flat else latent[1], height, up=flat)
        doublings = min(doublings, _doublings(_TOP if flat else latent[2], width, up=flat))
        self._start = (math.ceil(height / 2**doublings), math.ceil(width / 2**doublings))
        above = [min(w, max_channels) for w in _WIDTHS[: max(doublings - 1, 0)]][::-1]
        first = min(_WIDTHS[min(doublings, len(_WIDTHS)) - 1], max_channels) if flat else latent[0]
        self.flat = _Unflatten(latent[0], first, self._start, max_channels) if flat else nn.Identity()
        layers: list[nn.Module] = []
        if doublings < 2:
            layers += [nn.Conv2d(first, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
            first = 64
        for inputs, outputs in itertools.pairwise((first, *above)):
            layers += [_double(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
        last = (first, *above)[-1]
        layers.append(_double(last, channels) if doublings else nn.Conv2d(last, channels, 3, padding=1))
        self.layers = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        """Images `N C H W` in [0, 1] of latents `N ...`."""
        z = self.flat(z)
        if z.shape[-2:] != self._start:
            z = functional.interpolate(z, self._start, mode="bilinear", align_corners=False)
        x: Tensor = self.layers(z)
        return x[..., : self._image[0], : self._image[1]]


class _Unflatten(nn.Module):
    """Flat latents to maps, by the two linear layers of Figure 6."""

    def __init__(self, latent: int, channels: int, size: tuple[int, int], max_channels: int) -> None:
        super().__init__()
        hidden = min(_WIDTHS[-1], max_channels)
        first = [] if latent == hidden else [nn.Linear(latent, hidden), nn.ReLU()]
        self._shape = (channels, *size)
        self.layers = nn.Sequential(*first, nn.Linear(hidden, math.prod(self._shape)), nn.ReLU())

    def forward(self, z: Tensor) -> Tensor:
        """Maps `N C h w` of latents `N D`."""
        x: Tensor = self.layers(z)
        return x.view(len(z), *self._shape)


class ImageDiscriminator(nn.Module):
    """Real or reconstructed: 4 x 4 convolutions of stride 2 to 64, 128, 256 and 512 channels, then the mean logit.

    LeakyReLU(0.2), batch norm in all but the first; as many halvings as leave at least 4 pixels a side.

    Args:
        image: channels, height, width; any size of at least 8 pixels.

    Note:
        Xiao et al. state no architecture; this is DCGAN's, with a mean over positions so that it takes any size.
    """

    def __init__(self, image: Image) -> None:
        super().__init__()
        halvings = max(1, min(4, int(math.log2(min(image[1:]) / 4))))
        widths = [64 * 2**i for i in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(image[0], 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `N` of images `N C H W` in [0, 1]; higher is more real."""
        logits: Tensor = self.layers(2 * x - 1)
        return logits.mean((1, 2, 3))


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


def _doublings(start: int, end: int, *, up: bool) -> int:
    """How often `start` doubles to reach `end`: at least `end` if `up`, else never more."""
    times = math.log2(end / start)
    return max(0, math.ceil(times) if up else math.floor(times))
