"""Compact StyleGAN2: mapping network, synthesis with one w per layer, and discriminator."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...benchmark.networks.classifiers.requirements import Image, require_power_of_two

#: Gain that preserves the variance through a leaky ReLU, and the slope of the ReLU.
GAIN, SLOPE = math.sqrt(2), 0.2
#: Factor of the mapping network's learning rate.
MAPPING_RATE = 0.01
#: Side length of the learned constant that synthesis starts from.
BASE = 4


class StyleGenerator(nn.Module):
    """StyleGAN2's generator: z -> mapping -> w -> synthesis, where each layer can have its own w.

    Synthesis starts from a learned 4 x 4 constant. Each resolution has two modulated and demodulated 3 x 3
    convolutions (4 x 4 has one), noise, leaky ReLU, and a modulated 1 x 1 convolution to RGB whose outputs are summed
    over resolutions. The RGB layer of a resolution shares its w with the first convolution of the next, so that
    64 x 64 images have 10 layers.

    References:
        Karras, Laine, Aittala, Hellsten, Lehtinen, Aila. Analyzing and Improving the Image Quality of StyleGAN. 2020.
        https://arxiv.org/abs/1912.04958

    Args:
        image: channels, height, width; a square whose side is a power of two, at least 8.
        latent: dimension of z and w.
        channel_base: a layer at resolution r has channel_base / r channels, up to `channel_max`.
        channel_max: largest number of channels.
        mapping_layers: fully connected layers from z to w.

    Note:
        Upsampling is bilinear and downsampling averages; the published code uses the filter [1, 3, 3, 1].
    """

    def __init__(
        self,
        image: Image,
        latent: int = 512,
        channel_base: int = 16384,
        channel_max: int = 512,
        mapping_layers: int = 2,
    ) -> None:
        super().__init__()
        resolutions = _resolutions(image)
        self.latent = latent
        self.layers = 2 * len(resolutions)
        self.mapping = nn.ModuleList(_Dense(latent, latent, MAPPING_RATE) for _ in range(mapping_layers))
        widths = [min(channel_base // resolution, channel_max) for resolution in resolutions]
        self.constant = nn.Parameter(torch.randn(1, widths[0], BASE, BASE))
        self.convolutions = nn.ModuleList()
        self.colours = nn.ModuleList()
        for i, (resolution, width) in enumerate(zip(resolutions, widths, strict=True)):
            if i > 0:
                self.convolutions.append(_Styled(widths[i - 1], width, latent, resolution, upsample=True))
            self.convolutions.append(_Styled(width, width, latent, resolution))
            self.colours.append(_Modulated(width, image[0], latent, kernel=1, demodulate=False))

    def styles(self, z: Tensor) -> Tensor:
        """Map z `... D` to w `... D`."""
        w = z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            w = functional.leaky_relu(layer(w), SLOPE) * GAIN
        return w

    def synthesis(self, w: Tensor) -> Tensor:
        """Images `N C H W`, nominally in [-1, 1], of one w per layer, `N L D`."""
        layers = iter(self.convolutions)
        x = next(layers)(self.constant.expand(len(w), -1, -1, -1), w[:, 0])
        picture: Tensor = self.colours[0](x, w[:, 1])
        for i, colour in enumerate(self.colours[1:]):
            x = next(layers)(x, w[:, 2 * i + 1])
            x = next(layers)(x, w[:, 2 * i + 2])
            picture = _upsample(picture) + colour(x, w[:, 2 * i + 3])
        return picture

    def forward(self, z: Tensor) -> Tensor:
        """Images `N C H W`, nominally in [0, 1] and not clamped, of z `N D` (the same in all layers) or `N L D`."""
        w = self.styles(z)
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.layers, -1)
        return self.synthesis(w).add(1).div(2)


class StyleDiscriminator(nn.Module):
    """StyleGAN2's residual discriminator, which sees the standard deviation of a group of images.

    Args:
        image: channels, height, width.
        channel_base: a layer at resolution r has channel_base / r channels, up to `channel_max`.
        channel_max: largest number of channels.
        group: images per standard deviation.
    """

    def __init__(self, image: Image, channel_base: int = 16384, channel_max: int = 512, group: int = 4) -> None:
        super().__init__()
        resolutions = _resolutions(image)[::-1]
        widths = [min(channel_base // resolution, channel_max) for resolution in resolutions]
        self._group = group
        self.entry = _Convolution(image[0], widths[0], 1)
        self.blocks = nn.ModuleList(_Residual(a, b) for a, b in itertools.pairwise(widths))
        self.exit = _Convolution(widths[-1] + 1, widths[-1], 3)
        self.hidden = _Dense(widths[-1] * BASE * BASE, widths[-1])
        self.output = _Dense(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `N` of images `N C H W`, nominally in [0, 1]."""
        x = _activate(self.entry(2 * x - 1))
        for block in self.blocks:
            x = block(x)
        x = torch.cat((x, self._group_deviation(x)), 1)
        x = _activate(self.exit(x)).flatten(1)
        logits: Tensor = self.output(_activate(self.hidden(x)))
        return logits.flatten()

    def _group_deviation(self, x: Tensor) -> Tensor:
        """Mean standard deviation within each group, as one more channel; image i is in group i mod (N / group)."""
        group = self._group if len(x) % self._group == 0 else len(x)
        grouped = x.reshape(group, -1, *x.shape[1:])
        deviation = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        return deviation.repeat(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])


class _Dense(nn.Module):
    """Linear layer whose weights are scaled at run time, so that Adam's step is the same for every layer."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self._scale, self._rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self._scale, self.bias * self._rate)


class _Convolution(nn.Module):
    """Convolution whose weights are scaled at run time."""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._scale = 1 / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self._scale, self.bias, padding=self.weight.shape[-1] // 2)


class _Modulated(nn.Module):
    """Convolution whose input channels are scaled by a style; demodulation gives the weights unit norm.

    Scaling the input and output of one shared convolution equals a convolution of each image with its own weights.
    """

    def __init__(self, inputs: int, outputs: int, latent: int, kernel: int, demodulate: bool = True) -> None:
        super().__init__()
        self.style = _Dense(latent, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._scale = 1 / math.sqrt(inputs * kernel * kernel)
        self._demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.style(w), self.weight * self._scale
        x = functional.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        if self._demodulate:
            norm = style.square() @ weight.square().sum((2, 3)).T
            x = x * torch.rsqrt(norm + 1e-8)[:, :, None, None]
        return x + self.bias[:, None, None]


class _Styled(nn.Module):
    """Optional upsampling, modulated convolution, noise and activation.

    The noise is drawn for each image in training mode and is a fixed buffer in evaluation mode ("const").
    """

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, latent: int, resolution: int, upsample: bool = False) -> None:
        super().__init__()
        self.convolution = _Modulated(inputs, outputs, latent, kernel=3)
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self._upsample = upsample

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.convolution(_upsample(x) if self._upsample else x, w)
        noise = torch.randn_like(x[:, :1]) if self.training else self.noise
        return _activate(x + self.strength * noise)


class _Residual(nn.Module):
    """Two convolutions and downsampling by 2, with a 1 x 1 convolution as the skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _Convolution(inputs, inputs, 3)
        self.second = _Convolution(inputs, outputs, 3)
        self.skip = _Convolution(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(functional.avg_pool2d(x, 2))
        x = functional.avg_pool2d(self.second(_activate(self.first(x))), 2)
        total: Tensor = (_activate(x) + skip) / math.sqrt(2)
        return total


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE) * GAIN


def _upsample(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def require_sides(network: str, image: Image) -> None:
    """Refuse images for which a StyleGAN2 has no layers.

    Raises:
        InvalidConfigurationError: the image is not square, or its side is not 8 pixels doubled any number of times.
    """
    require_power_of_two(network, image, 2 * BASE, "choose a data set of such a size")


def _resolutions(image: Image) -> list[int]:
    require_sides("StyleGAN2", image)
    return [2**power for power in range(int(math.log2(BASE)), int(math.log2(image[1])) + 1)]
