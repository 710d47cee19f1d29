"""VGG with batch norm: BiDO's target on CelebA and CIFAR-10 (16 layers) and judge on CIFAR-10 (19)."""

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from ..weights.published import imagenet_state, transfer
from .layers import relu_block, unshifted_norm
from .network import Network
from .requirements import Image, require_imagenet_channels, require_size

_WIDTHS = (64, 128, 256, 512, 512)


class _VGG(Network):
    family: ClassVar[str] = "vgg"
    pretraining: ClassVar[str] = "ImageNet"
    name: ClassVar[str]
    depths: ClassVar[tuple[int, int, int, int, int]]

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images smaller than 32 x 32, and for published weights those without three channels."""
        require_size(cls.name, image, 32)
        if pretrained:
            require_imagenet_channels(cls.name, image)

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        self.require(image, pretrained=pretrained)
        inputs = (image[0], *_WIDTHS)
        blocks = [relu_block(*shape) for shape in zip(inputs, _WIDTHS, self.depths, strict=False)]
        if pretrained:
            _copy(blocks, imagenet_state(self.name), self.name)
        width = 512 * (image[1] // 32) * (image[2] // 32)
        feature = OrderedDict(block5=blocks[4], flat=nn.Flatten(), norm=unshifted_norm(width))
        stages = {f"block{i}": block for i, block in enumerate(blocks[:4], 1)}
        super().__init__({**stages, "feature": nn.Sequential(feature), "logits": nn.Linear(width, classes)})

    def backbone(self) -> tuple[dict[str, nn.Module], int]:
        """Return the five blocks without the norm: the published bottleneck follows the flattened fifth block."""
        stages, width = super().backbone()
        feature = stages["feature"]
        assert isinstance(feature, nn.Sequential)
        return {**stages, "feature": feature[:2]}, width


class VGG16BN(_VGG):
    """VGG-16 with batch norm and one linear layer, which BiDO attacks on CelebA and CIFAR-10.

    Five blocks of 3 x 3 convolutions, each ending in a max pool, then batch norm without shift on the flattened fifth
    block, then one linear layer; no dropout. Images are at least 32 pixels high and wide; `pretrained` loads
    torchvision's ImageNet weights (3 channels) into the convolutions and their batch norms.

    | latent | 64 x 64 | 32 x 32 |
    |---|---|---|
    | `block1` | 64 x 32 x 32 | 64 x 16 x 16 |
    | `block2` | 128 x 16 x 16 | 128 x 8 x 8 |
    | `block3` | 256 x 8 x 8 | 256 x 4 x 4 |
    | `block4` | 512 x 4 x 4 | 512 x 2 x 2 |
    | `feature` | 2048 | 512 |

    References:
        Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015.
        https://arxiv.org/abs/1409.1556
        Peng, Liu, Zhang, Lan, Ye, Liu, Han. Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks. KDD 2022. https://arxiv.org/abs/2206.05483

    Note:
        Images are not normalised by ImageNet's mean and deviation, as in the published targets.

    Note:
        We copy ImageNet weights by name. The released code copies by position, which hides a mismatch.
    """

    name = "vgg16_bn"
    weights = "vgg16_bn"
    depths = (2, 2, 3, 3, 3)


class VGG19BN(_VGG):
    """VGG-19 with batch norm and one linear layer, the judge of CIFAR-10 images.

    As `VGG16BN`, with four convolutions in each of the last three blocks.

    References:
        Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015.
        https://arxiv.org/abs/1409.1556
    """

    name = "vgg19_bn"
    weights = "vgg19_bn"
    depths = (2, 2, 4, 4, 4)


def _copy(blocks: list[nn.Sequential], state: dict[str, Tensor], name: str) -> None:
    """Copy torchvision's `features.<position>.<parameter>` into the blocks, without its classifier."""
    features = nn.Sequential(*(layer for block in blocks for layer in block))
    kept = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    transfer(features, kept, f"the ImageNet weights of {name}")
