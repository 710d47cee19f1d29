"""MCNN: the target of BiDO's MNIST experiments."""

from typing import ClassVar

from torch import nn

from .layers import leaky_block
from .network import Network
from .requirements import Image, require_size, require_untrained


class MCNN(Network):
    """Three-layer convolutional network that BiDO attacks on MNIST and calls LeNet.

    Latents of a 1 x 32 x 32 image: `layer1` 64 x 14 x 14, `layer2` 128 x 5 x 5, `layer3` 256 (flat). Images are at
    least 32 pixels high and wide; there are no published weights.

    References:
        Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
        Networks. CVPR 2020. https://arxiv.org/abs/1911.07135

    Note:
        For images larger than the published 32 x 32 only `layer3` and the last layer are wider.

    Example:
        >>> MCNN((1, 32, 32), 5).layers
        ('layer1', 'layer2', 'layer3')
    """

    family: ClassVar[str] = "leaky_cnn"

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images smaller than 32 x 32, and published weights, which there are none of."""
        require_size("mcnn", image, 32)
        require_untrained("mcnn", pretrained)

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        self.require(image, pretrained=pretrained)
        channels, height, width = image
        super().__init__(
            {
                "layer1": leaky_block(channels, 64, 7, padding=1, pool=True),
                "layer2": leaky_block(64, 128, 5, pool=True),
                "layer3": nn.Sequential(*leaky_block(128, 256, 5), nn.Flatten()),
                "logits": nn.Linear(256 * _side(height) * _side(width), classes),
            }
        )


def _side(pixels: int) -> int:
    """Height or width of `layer3`, after a 7 x 7 (padding 1) and two 5 x 5 convolutions and two halvings."""
    return ((pixels - 4) // 2 - 4) // 2 - 4
