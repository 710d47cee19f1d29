"""ResNet-50 with a two-layer head: the encoder and utility classifier of adversarial reconstruction."""

from collections import OrderedDict
from typing import ClassVar

from torch import nn

from .network import Network
from .requirements import Image
from .resnet34 import imagenet_trunk, require_resnet

#: Outputs of the last layer of the ImageNet network, the encoding Z of the paper.
LATENT = 1000
#: Hidden units of the head f.
HIDDEN = 512


class ResNet50(Network):
    """ResNet-50 with ImageNet's layer `fc`, then a two-layer MLP: Xiao et al.'s encoder and utility head.

    The six cut layers of their Table 3, from input to output; the head f is the stage `logits`
    (linear 1000 -> 512, ReLU, linear 512 -> K). Images are at least 32 pixels high and wide; `pretrained` loads
    torchvision's ImageNet weights (3 channels) into everything up to `fc`.

    | latent | torchvision's modules | 224 x 224 | 64 x 64 | 32 x 32 |
    |---|---|---|---|---|
    | `conv1` | `conv1`, `bn1`, `relu`, `maxpool`, `layer1` | 256 x 56 x 56 | 256 x 16 x 16 | 256 x 8 x 8 |
    | `conv2` | `layer2` | 512 x 28 x 28 | 512 x 8 x 8 | 512 x 4 x 4 |
    | `conv3` | `layer3` | 1024 x 14 x 14 | 1024 x 4 x 4 | 1024 x 2 x 2 |
    | `conv4` | `layer4` | 2048 x 7 x 7 | 2048 x 2 x 2 | 2048 x 1 x 1 |
    | `avgpool` | `avgpool`, flattened | 2048 | 2048 | 2048 |
    | `fc` | `fc`, no ReLU | 1000 | 1000 | 1000 |

    References:
        He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016. https://arxiv.org/abs/1512.03385
        Xiao, Tsai, Sohn, Chandraker, Yang. Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations. AAAI 2020. https://arxiv.org/abs/1911.10143

    Note:
        The paper states only that f has two fully connected layers; 512 hidden units and ReLU are our choice.

    Note:
        The paper names the layers Conv1 to Conv4 (its appendix `layer1` to `layer4`) and does not define them. We
        take the four groups of residual blocks, the first one with the stem.

    Note:
        The paper does not say whether the encoder starts from ImageNet weights; its `fc` has ImageNet's 1000 outputs.
        The field `pretrained` of the protocol decides.

    Note:
        We scale images to [-1, 1], as for `resnet34` and as the tanh of the paper's decoder suggests, and do not
        normalise by the mean and deviation of ImageNet's channels. The paper does not state this.
    """

    family: ClassVar[str] = "resnet"
    pretraining: ClassVar[str] = "ImageNet"
    weights: ClassVar[str | None] = "resnet50"

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images smaller than 32 x 32, and for published weights those without three channels."""
        require_resnet("resnet50", image, pretrained=pretrained)

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        trunk, stem = imagenet_trunk("resnet50", image, pretrained=pretrained, head=True)
        super().__init__(
            {
                "conv1": nn.Sequential(OrderedDict(**stem, layer1=trunk.layer1)),
                "conv2": trunk.layer2,
                "conv3": trunk.layer3,
                "conv4": trunk.layer4,
                "avgpool": nn.Sequential(trunk.avgpool, nn.Flatten()),
                "fc": trunk.fc,
                "logits": nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)),
            }
        )

    def backbone(self) -> tuple[dict[str, nn.Module], int]:
        """Return the stages up to `fc`: another head, such as a bottleneck, replaces f."""
        return {name: self.stages[name] for name in self.layers}, LATENT
