"""ResNet-34 with a 50-dimensional bottleneck: BiDO's target in the experiments with VMI."""

from collections import OrderedDict
from typing import Any, ClassVar

import torchvision.models
from torch import Tensor, nn

from ..weights.published import imagenet_state, transfer
from .network import Network
from .requirements import Image, require_imagenet_channels, require_size

LATENT = 50


class Rescale(nn.Module):
    """Rescales images from [0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute 2 x - 1."""
        return 2 * x - 1


def require_resnet(name: str, image: Image, *, pretrained: bool) -> None:
    """Refuse images smaller than 32 x 32, and for published weights those without three channels."""
    require_size(name, image, 32)
    if pretrained:
        require_imagenet_channels(name, image)


def imagenet_trunk(name: str, image: Image, *, pretrained: bool, head: bool) -> tuple[Any, OrderedDict[str, nn.Module]]:
    """Build one of torchvision's ResNets, and the stem of a network for images in [0, 1] from its first layers.

    Args:
        name: of the ResNet.
        image: channels, height, width; at least 32 pixels high and wide.
        pretrained: load the ImageNet weights (3 channels).
        head: keep the last layer `fc`.
    """
    require_resnet(name, image, pretrained=pretrained)
    trunk: Any = torchvision.models.get_model(name, weights=None)
    if not head:
        trunk.fc = nn.Identity()
    if pretrained:
        state = {key: value for key, value in imagenet_state(name).items() if head or not key.startswith("fc.")}
        transfer(trunk, state, f"the ImageNet weights of {name}")
    if image[0] != 3:
        trunk.conv1 = nn.Conv2d(image[0], 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(trunk.conv1.weight, mode="fan_out", nonlinearity="relu")
    stem = OrderedDict(rescale=Rescale(), conv1=trunk.conv1, bn1=trunk.bn1, relu=trunk.relu, maxpool=trunk.maxpool)
    return trunk, stem


class ResNet34(Network):
    """ResNet-34 that ends in a 50-dimensional layer, which BiDO attacks on CelebA by VMI.

    Latents of a 64 x 64 image: `stem` (after the max pool) and `stage1` 64 x 16 x 16, `stage2` 128 x 8 x 8, `stage3`
    256 x 4 x 4, `stage4` 512 x 2 x 2, `fc1` 50 (average pool, ReLU, batch norm, linear), `bn2` 50 (ReLU, batch norm).
    Convolution weights start from N(0, 2 / (k k c_out)), which is torchvision's initialisation. Images are at least 32
    pixels high and wide; `pretrained` loads torchvision's ImageNet weights (3 channels) into stem and stages.

    References:
        He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016. https://arxiv.org/abs/1512.03385
        Wang, Fu, Li, Khisti, Zemel, Makhzani. Variational Model Inversion Attacks. NeurIPS 2021.
        https://arxiv.org/abs/2201.10787

    Note:
        The released network ends in a log-softmax. Ours returns logits, with the same cross-entropy.

    Note:
        We average the last feature map over all positions. The released code pools 2 x 2, which is equal at 64 x 64.

    Note:
        The published targets are trained from scratch; the option of ImageNet weights is ours.
    """

    family: ClassVar[str] = "resnet"
    pretraining: ClassVar[str] = "ImageNet"
    weights: ClassVar[str | None] = "resnet34"

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images smaller than 32 x 32, and for published weights those without three channels."""
        require_resnet("resnet34", image, pretrained=pretrained)

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        trunk, stem = imagenet_trunk("resnet34", image, pretrained=pretrained, head=False)
        super().__init__(
            {
                "stem": nn.Sequential(stem),
                "stage1": trunk.layer1,
                "stage2": trunk.layer2,
                "stage3": trunk.layer3,
                "stage4": trunk.layer4,
                "fc1": nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.BatchNorm1d(512), nn.Linear(512, LATENT)
                ),
                "bn2": nn.Sequential(nn.ReLU(), nn.BatchNorm1d(LATENT)),
                "logits": nn.Linear(LATENT, classes),
            }
        )

    def backbone(self) -> tuple[dict[str, nn.Module], int]:
        """Return the stages up to `fc1`, to whose output the published bottleneck is attached."""
        stages, width = super().backbone()
        del stages["bn2"]
        return stages, width
