"""Decoder from a latent at any cut layer to an image, and a discriminator for adversarial training."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from .classifiers.requirements import Image

#: Channels before the image and before each doubling that precedes it, as in Figure 6.
_WIDTHS = (64, 256, 512, 1024, 2048)
#: Approximate side of the map that a flat latent becomes, as in ResNet-50's last one.
_TOP = 7


class Decoder(nn.Module):
    """Mirror image of an encoder: maps a latent Z at a cut layer to the image, doubling height and width.

    Two linear layers with ReLU (one if Z is as wide as the hidden layer) turn a flat Z into a map of at most 7 x 7
    positions. Each doubling is a 3 x 3 transposed convolution of stride 2 with batch norm and ReLU; the last one has
    three (or one) channels and a sigmoid. There are 64 channels before the image, and 256, 512, 1024 and 2048 before
    the earlier doublings, which gives Figure 6 for ResNet-50 at 224 x 224.

    Args:
        latent: shape of one Z, `(D,)` or `(C, h, w)`.
        image: channels, height, width.
        max_channels: maximum number of channels.

    References:
        Xiao, Tsai, Sohn, Chandraker, Yang. Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations. AAAI 2020, Fig. 6. https://arxiv.org/abs/1911.10143

    Note:
        The paper ends in tanh on images in [-1, 1]; a sigmoid on images in [0, 1] is the same function of half the
        last layer's output.

    Note:
        Figure 6 is for ResNet-50 at 224 x 224. If the size of a map is not that of the image divided by a power of two,
        we enlarge it bilinearly to the next such size and crop the output. If there would be one layer or none, a
        convolution with 64 channels comes first.

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
        """Decode latents `N ...` to images `N C H W` in [0, 1]."""
        z = self.flat(z)
        if z.shape[-2:] != self._start:
            z = functional.interpolate(z, self._start, mode="bilinear", align_corners=False)
        x: Tensor = self.layers(z)
        return x[..., : self._image[0], : self._image[1]]


class _Unflatten(nn.Module):
    """The two linear layers of Figure 6, from flat latents to maps."""

    def __init__(self, latent: int, channels: int, size: tuple[int, int], max_channels: int) -> None:
        super().__init__()
        hidden = min(_WIDTHS[-1], max_channels)
        first = [] if latent == hidden else [nn.Linear(latent, hidden), nn.ReLU()]
        self._shape = (channels, *size)
        self.layers = nn.Sequential(*first, nn.Linear(hidden, math.prod(self._shape)), nn.ReLU())

    def forward(self, z: Tensor) -> Tensor:
        """Turn latents `N D` into maps `N C h w`."""
        x: Tensor = self.layers(z)
        return x.view(len(z), *self._shape)


class ImageDiscriminator(nn.Module):
    """Discriminator of real and reconstructed images: 4 x 4 convolutions of stride 2, then the mean logit.

    The convolutions have 64, 128, 256 and 512 channels, LeakyReLU(0.2) and, except the first, batch norm. There are as
    many as leave at least 4 pixels per side.

    Args:
        image: channels, height, width; any size of at least 8 pixels.

    Note:
        Xiao et al. do not state the architecture; this is DCGAN's, with a mean over positions for images of any size.
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
        """Logits `N` of images `N C H W` in [0, 1]; higher means real."""
        logits: Tensor = self.layers(2 * x - 1)
        return logits.mean((1, 2, 3))


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


def _doublings(start: int, end: int, *, up: bool) -> int:
    """Number of doublings from `start` to `end`, rounded up if `up`, else down."""
    times = math.log2(end / start)
    return max(0, math.ceil(times) if up else math.floor(times))
