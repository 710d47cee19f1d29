"""dlib's face ResNet, whose weights the user imports."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..weights.named import load_into
from .alignment import DLIB, AlignedFaceEmbedder, Chip

#: Mean of red, green and blue, which dlib subtracts.
_MEAN = (122.782, 117.001, 104.298)
#: Name, inputs, outputs; blocks whose name starts with d halve the image.
_BLOCKS = (
    ("b32_0", 32, 32),
    ("b32_1", 32, 32),
    ("b32_2", 32, 32),
    ("d64", 32, 64),
    ("b64_0", 64, 64),
    ("b64_1", 64, 64),
    ("b64_2", 64, 64),
    ("d128", 64, 128),
    ("b128_0", 128, 128),
    ("b128_1", 128, 128),
    ("d256", 128, 256),
    ("b256_0", 256, 256),
    ("b256_1", 256, 256),
    ("d256b", 256, 256),
)


class DlibResNet(AlignedFaceEmbedder):
    """dlib's face recognition ResNet v1, 128-d.

    RGB in dlib's alignment at 150 x 150, (255 x - mean) / 256. `privbench weights show dlib_resnet` lists the names and
    shapes of the weights.

    References:
        King. Dlib-ml: A Machine Learning Toolkit. JMLR 2009. https://www.jmlr.org/papers/v10/king09a.html
        Weights: dlib_face_recognition_resnet_model_v1, https://github.com/davisking/dlib-models

    Note:
        dlib compares faces by Euclidean distance (one person below 0.6) of vectors of any length. We divide by the
        length and compare by cosine, as with every embedder. Its cosines are high, above 0.8 even for unrelated faces:
        compare them with those of unrelated faces.

    Note:
        One warp aligns all faces, as in `MobileFaceNet`; dlib detects landmarks in each image.
    """

    weights: ClassVar[str] = "dlib_resnet"
    chip: ClassVar[Chip] = DLIB
    mean: Tensor

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(3, 1, 1), persistent=False)
        self.conv1 = _Convolution(3, 32, 7, stride=2)
        for name, inputs, outputs in _BLOCKS:
            self.add_module(name, (_Down if name.startswith("d") else _Block)(inputs, outputs))
        self.fc = _Product(256, 128)
        if pretrained:
            load_into(self, "dlib_resnet")

    def compute(self, chips: Tensor) -> Tensor:
        """Dlib's embeddings `N 128`, not normalised, of chips `N 3 150 150` in [0, 1]."""
        x = functional.relu(self.conv1((255 * chips - self.mean) / 256))
        x = functional.max_pool2d(x, 3, 2)
        for name, _, _ in _BLOCKS:
            x = self.get_submodule(name)(x)
        found: Tensor = self.fc(x.mean((2, 3)))
        return found


class _Convolution(nn.Conv2d):
    """Convolution followed by gamma x + beta per channel: batch norm as dlib stores it after training."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.gamma = nn.Parameter(torch.ones(outputs))
        self.beta = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma[:, None, None] * super().forward(x) + self.beta[:, None, None]


class _Block(nn.Module):
    """Two convolutions with the input added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(inputs, outputs, 3, padding=1)
        self.conv2 = _Convolution(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + x)


class _Down(nn.Module):
    """Two convolutions that halve the image, with the 2 x 2 mean of the input added.

    Both summands are padded with zeros at the end of channels, rows and columns to the larger shape.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(inputs, outputs, 3, stride=2)
        self.conv2 = _Convolution(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(functional.relu(self.conv1(x)))
        skip = functional.avg_pool2d(x, 2)
        shape = [max(pair) for pair in zip(y.shape[1:], skip.shape[1:], strict=True)]
        return functional.relu(_zero_padded(y, shape) + _zero_padded(skip, shape))


def _zero_padded(x: Tensor, shape: list[int]) -> Tensor:
    missing = [want - have for want, have in zip(shape, x.shape[1:], strict=True)]
    return functional.pad(x, [part for extra in reversed(missing) for part in (0, extra)])


class _Product(nn.Module):
    """Linear map without bias, with the matrix as dlib stores it: inputs x outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight
