"""LeNet-5: the second judge of digits."""

from typing import ClassVar

from torch import nn

from .network import Network
from .requirements import Image, require_size, require_untrained

#: Height and width of the second feature map, which the third convolution reduces to one position.
_SIDE = 5


class LeNet5(Network):
    """LeNet-5 in its modern form: two convolutions with max pools, three dense layers, ReLU.

    Latents of a 1 x 32 x 32 image: `layer1` 6 x 14 x 14, `layer2` 16 x 5 x 5, `layer3` 120 (flat), `layer4` 84. With 10
    classes it has 61,706 weights, and a forward pass needs a twentieth of the multiplications of `scnn`. Images are at
    least 28 pixels high and wide; there are no published weights.

    References:
        LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. Proceedings of the
        IEEE 86(11), 1998. http://yann.lecun.com/exdb/mnist/

    Note:
        We use ReLU instead of the scaled tanh, and max pools instead of averages with a trained factor and bias.

    Note:
        Every filter of the second convolution uses all six maps; in 1998 most used three or four of them.

    Note:
        The last layer is linear; in 1998 it was the distance to a 7 x 12 bitmap of each class.

    Note:
        For other sizes than 32 x 32 the map before `layer3` is averaged (for 28 x 28, repeated) to 5 x 5 positions.
    """

    family: ClassVar[str] = "lenet"

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images smaller than 28 x 28, and published weights, which there are none of."""
        require_size("lenet5", image, 28)
        require_untrained("lenet5", pretrained)

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        self.require(image, pretrained=pretrained)
        super().__init__(
            {
                "layer1": nn.Sequential(nn.Conv2d(image[0], 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
                "layer2": nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(_SIDE)),
                "layer3": nn.Sequential(nn.Conv2d(16, 120, _SIDE), nn.ReLU(), nn.Flatten()),
                "layer4": nn.Sequential(nn.Linear(120, 84), nn.ReLU()),
                "logits": nn.Linear(84, classes),
            }
        )
