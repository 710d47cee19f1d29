"""SCNN: the judge of BiDO's MNIST experiments."""

from typing import ClassVar

from torch import nn

from .layers import leaky_block
from .network import Network
from .requirements import Image, require_size, require_untrained


class SCNN(Network):
    """Five-layer convolutional network, the judge of digits.

    Latents of a 1 x 32 x 32 image: `layer1` 32 x 14 x 14, `layer2` 64 x 5 x 5, `layer3` 128 x 1 x 1, `layer4` 256 x 1 x
    1, `layer5` 512 (flat). Images are at least 32 pixels high and wide; there are no published weights.

    References:
        Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
        Networks. CVPR 2020. https://arxiv.org/abs/1911.07135

    Note:
        For images larger than the published 32 x 32 the last map is averaged over positions, so that the features that
        FID compares remain 512-dimensional.
    """

    family: ClassVar[str] = "leaky_cnn"

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images smaller than 32 x 32, and published weights, which there are none of."""
        require_size("scnn", image, 32)
        require_untrained("scnn", pretrained)

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        self.require(image, pretrained=pretrained)
        super().__init__(
            {
                "layer1": leaky_block(image[0], 32, 7, padding=1, pool=True),
                "layer2": leaky_block(32, 64, 5, pool=True),
                "layer3": leaky_block(64, 128, 5),
                "layer4": leaky_block(128, 256, 3, padding=1),
                "layer5": nn.Sequential(*leaky_block(256, 512, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                "logits": nn.Linear(512, classes),
            }
        )
