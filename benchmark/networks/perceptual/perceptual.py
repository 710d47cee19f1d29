"""Perceptual distance: distance of images in the activations of a network trained to recognise objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InvalidConfigurationError
from ..weights.named import digest, read
from ..weights.published import transfer


class Perceptual(nn.Module, ABC):
    r"""Frozen network g with a distance between images in its activations.

    $$d(a, b) = \sum_j \frac{1}{C_j H_j W_j s_j^2} \lVert g_j(a) - g_j(b) \rVert^2$$

    with s_j = 1 unless the network declares `scales`.

    A subclass sets `weights`, defines `layers`, and ends its `__init__` with `freeze`.

    Args:
        pretrained: load the weights named by `weights`; otherwise they are random.

    Raises:
        MissingDataError: the weights are missing or damaged.

    References:
        Dosovitskiy, Brox. Generating Images with Perceptual Similarity Metrics based on Deep Networks. NIPS 2016.
        https://arxiv.org/abs/1602.02644
        Xiao, Tsai, Sohn, Chandraker, Yang. Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations. AAAI 2020. https://arxiv.org/abs/1911.10143

    Note:
        The paper prints a squared norm. We take the mean over each activation, so that weights such as lambda_2 depend
        neither on the size of the images nor on the width of a layer.

    Note:
        The paper does not say how small or grey images enter the network. We repeat the grey channel and enlarge
        bilinearly, with the same aspect ratio, until the shorter side has `smallest` pixels; we never shrink an image.
    """

    kind: ClassVar[str] = "perceptual"
    version: ClassVar[int] = 1
    #: Name in `privbench weights ls`; `None` without learned weights.
    weights: ClassVar[str | None] = None
    #: Least height and width for `layers`, in pixels, where the last activation is 2 x 2.
    smallest: ClassVar[int] = 32
    #: Scales s_j that divide the activations in a distance; empty for 1.
    scales: ClassVar[tuple[float, ...]] = ()

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()

    @classmethod
    def files(cls) -> Mapping[str, str]:
        """Return the SHA-256 of the files that the constructor reads, by name; by default that of `weights`.

        Raises:
            MissingDataError: a file is missing or damaged.
        """
        return {cls.weights: digest(cls.weights)} if cls.weights else {}

    @abstractmethod
    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Activations, from input to output, of images `N 3 H W` in [0, 1] of at least `smallest` pixels per side."""

    def activations(self, x: Tensor) -> tuple[Tensor, ...]:
        """Activations, from input to output, of images in [0, 1] of any size.

        Args:
            x: `float32 N C H W` in [0, 1], of 1 or 3 channels.

        Raises:
            InvalidConfigurationError: the images have another number of channels.
        """
        self.require_channels(x.shape[1])
        x = _enlarge(x.expand(-1, 3, -1, -1), self.smallest)
        return self.layers(x.contiguous(memory_format=torch.channels_last))

    @classmethod
    def require_channels(cls, channels: int) -> None:
        """Refuse images of other than 1 or 3 channels.

        Raises:
            InvalidConfigurationError: names the network and the number.
        """
        if channels not in (1, 3):
            raise InvalidConfigurationError(
                f"expected images for {cls.__name__} to have 1 or 3 channels, got {channels}; "
                "choose another data set, or set the weight of the perceptual distance to 0"
            )

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance `N` of images `a` and `b`, each `N C H W` in [0, 1]; differentiable in both, 0 where equal."""
        first, second = self.activations(a), self.activations(b)
        triples = zip(first, second, self.scales or (1.0,) * len(first), strict=True)
        return torch.stack([((p - q) / s).square().flatten(1).mean(1) for p, q, s in triples]).sum(0)

    def freeze(self) -> None:
        """Freeze the network; gradients with respect to images remain available."""
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Perceptual:
        """Stay in evaluation mode, since g is frozen."""
        super().train(False)
        return self

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distance."""
        return self.distance(a, b)


class VGG16(Perceptual):
    """VGG-16, the network of the paper's perceptual distance.

    Five activations, conv1 to conv5, of 64, 128, 256, 512, 512 channels at 1, 1/2, 1/4, 1/8, 1/16 of the image's side.

    References:
        Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015.
        https://arxiv.org/abs/1409.1556

    Note:
        The paper says "conv1 to conv5 layers of the VGG network", without the depth of the network or the convolution
        within a block. We take 16 layers and the last convolution of each block, after its ReLU and before the pool:
        conv1_2, conv2_2, conv3_3, conv4_3, conv5_3.

    Note:
        We normalise images by ImageNet's mean and deviation, as in the training of torchvision's weights. The paper
        does not state this.
    """

    weights: ClassVar[str] = "vgg16"
    mean: Tensor
    deviation: Tensor

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.features = _convolutions()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1), persistent=False)
        if pretrained:
            kept = {name: value for name, value in read(self.weights).items() if not name.startswith("classifier.")}
            transfer(self, kept, f"the weights {self.weights}")
        self.freeze()

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the five blocks, before the pools."""
        activations = []
        x = (x - self.mean) / self.deviation
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                activations.append(x)
            x = layer(x)
        return (*activations, x)


def _convolutions() -> nn.Sequential:
    """Build the convolutions of VGG-16 up to the last ReLU, with the numbering of torchvision's names."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
    return nn.Sequential(*layers)


def _enlarge(x: Tensor, smallest: int) -> Tensor:
    """Enlarge images until their shorter side has at least `smallest` pixels."""
    shorter = min(x.shape[-2:])
    if shorter >= smallest:
        return x
    size = [-(-side * smallest // shorter) for side in x.shape[-2:]]
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)
