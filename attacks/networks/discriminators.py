"""Discriminators of GMI (a critic) and KED-MI (k + 1 classes)."""

import itertools

from torch import Tensor, nn

from ...benchmark.networks.classifiers.requirements import Image, require_square
from .generators import SIDES
from .minibatch import MinibatchDiscrimination


class Critic(nn.Module):
    """Wasserstein critic of GMI.

    5 x 5 convolutions of stride 2 with LeakyReLU(0.2), doubling the channels from 64 down to a 4 x 4 map, with affine
    instance norm except in the first, then a 4 x 4 convolution to one number.

    Args:
        image: channels, height, width; 32 x 32 or 64 x 64.

    References:
        Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
        Networks. CVPR 2020. https://arxiv.org/abs/1911.07135
        Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville. Improved Training of Wasserstein GANs. NeurIPS 2017.
        https://arxiv.org/abs/1704.00028

    Raises:
        InvalidConfigurationError: the image has another size.
    """

    def __init__(self, image: Image) -> None:
        super().__init__()
        require_square("the GMI critic", image, SIDES)
        widths = (64, 128, 256, 512) if image[1] == 64 else (64, 128, 256)
        layers: list[nn.Module] = [nn.Conv2d(image[0], 64, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
        for inputs, outputs in itertools.pairwise(widths):
            layers += _normalised(inputs, outputs, 5)
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4), nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        """Scores `N` of images `N C H W` in [0, 1]; higher is more real."""
        scores: Tensor = self.layers(x)
        return scores


class LabelDiscriminator(nn.Module):
    """Discriminator of KED-MI, with k logits and an implicit fake logit of 0.

    Convolutions of stride 2 with affine instance norm and LeakyReLU(0.2) (5 x 5 to 64, 128 and 256 channels; for
    64 x 64 images one more, 3 x 3 to 256), flattened to f of width 4096; minibatch discrimination with 64 kernels of 50
    dimensions; one linear layer.

    Args:
        image: channels, height, width; 32 x 32 or 64 x 64.
        classes: k, number of the target's classes.

    References:
        Chen, Kahla, Jia, Qi. Knowledge-Enriched Distributional Model Inversion Attacks. ICCV 2021.
        https://arxiv.org/abs/2010.04092

    Raises:
        InvalidConfigurationError: the image has another size.
    """

    def __init__(self, image: Image, classes: int) -> None:
        super().__init__()
        require_square("the KED-MI discriminator", image, SIDES)
        layers = [*_normalised(image[0], 64, 5), *_normalised(64, 128, 5), *_normalised(128, 256, 5)]
        if image[1] == 64:
            layers += _normalised(256, 256, 3)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.minibatch = MinibatchDiscrimination(4096)
        self.output = nn.Linear(4096 + 64, classes)

    def features(self, x: Tensor) -> Tensor:
        """f, `N 4096`, of images `N C H W` in [0, 1]."""
        f: Tensor = self.convolutions(x)
        return f

    def classify(self, f: Tensor, group: int | None = None) -> Tensor:
        """Logits `N k` of features f; see `forward`."""
        logits: Tensor = self.output(self.minibatch(f, group))
        return logits

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        """Logits `N k` of images `N C H W` in [0, 1].

        Args:
            x: the images.
            group: number of consecutive images that minibatch discrimination compares with each other, so that several
                published batches run as one; `None` compares all.
        """
        return self.classify(self.features(x), group)


def _normalised(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.LeakyReLU(0.2),
    ]
