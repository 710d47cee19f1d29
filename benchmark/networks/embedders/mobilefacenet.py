"""MobileFaceNet, a small face network whose weights the user imports."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from ..weights.named import load_into
from .alignment import ARCFACE, AlignedFaceEmbedder, Chip


class MobileFaceNet(AlignedFaceEmbedder):
    """MobileFaceNet, 192-d: a small face network with 99 % accuracy on LFW.

    RGB in ArcFace's alignment at 112 x 112, (255 x - 127.5) / 128; compared by cosine. Batch norm is folded into the
    convolutions. `privbench weights show mobilefacenet` lists the names and shapes of the weights.

    References:
        Chen, Liu, Gao, Han. MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices.
        CCBR 2018. https://arxiv.org/abs/1804.07573

    Note:
        This is the variant with 192 outputs and PReLU whose weights are distributed with mobile applications: padding
        is TensorFlow's SAME, and a linear 1 x 1 convolution of 512 channels follows the global depthwise one.

    Note:
        One warp aligns all faces: it maps CelebA's mean points to ArcFace's template. Landmarks may not be detectable
        in a reconstruction, and CelebA's frame is already aligned by the eyes. The mapped mean points differ from the
        template by 0.5 to 2.9 pixels of the chip (most at the nose), since the mean faces of CelebA and ArcFace
        differ.
    """

    weights: ClassVar[str] = "mobilefacenet"
    chip: ClassVar[Chip] = ARCFACE

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.stem = _Convolution(3, 64, 3, stride=2)
        self.first = nn.Sequential(_Convolution(64, 64, 3, groups=64), _Convolution(64, 64, 1, linear=True))
        self.blocks = nn.Sequential(
            _Bottleneck(64, 128, 64, stride=2),
            *(_Bottleneck(64, 128, 64) for _ in range(4)),
            _Bottleneck(64, 256, 128, stride=2),
            *(_Bottleneck(128, 256, 128) for _ in range(6)),
            _Bottleneck(128, 512, 128, stride=2),
            *(_Bottleneck(128, 256, 128) for _ in range(2)),
        )
        self.last = _Convolution(128, 512, 1)
        self.pool = nn.Sequential(
            nn.Conv2d(512, 512, 7, groups=512),
            nn.Conv2d(512, 512, 1),
            nn.Conv2d(512, 192, 1),
        )
        if pretrained:
            load_into(self, "mobilefacenet")

    def compute(self, chips: Tensor) -> Tensor:
        """Embeddings `N 192`, of any length, of chips `N 3 112 112` in [0, 1]."""
        x = self.stem((255 * chips - 127.5) / 128)
        x = self.last(self.blocks(self.first(x)))
        found: Tensor = self.pool(x).flatten(1)
        return found


class _Convolution(nn.Module):
    """Convolution with TensorFlow's SAME padding for even sides, followed by a PReLU unless `linear`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.padding = kernel - stride
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self.act = nn.Identity() if linear else nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.padding // 2, self.padding - self.padding // 2
        found: Tensor = self.act(self.conv(functional.pad(x, (before, after, before, after))))
        return found


class _Bottleneck(nn.Module):
    """Inverted bottleneck: expand, depthwise convolution, linear projection; with a skip if the shape is equal."""

    def __init__(self, inputs: int, width: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.expand = _Convolution(inputs, width, 1)
        self.depthwise = _Convolution(width, width, 3, stride=stride, groups=width)
        self.project = _Convolution(width, outputs, 1, linear=True)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y
