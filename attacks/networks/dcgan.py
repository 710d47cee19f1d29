"""DCGAN, which VMI uses for small images."""

import itertools

from torch import Tensor, nn

from ...benchmark.networks.classifiers.requirements import Image, require_square

#: Heights and widths of the published networks, in pixels.
SIDES = (32, 64)


class DCGenerator(nn.Module):
    """Generator of transposed 4 x 4 convolutions with batch norm and ReLU, and a tanh at the end.

    Widths for 64 x 64: 8 ngf at 4 x 4, 4 ngf at 8 x 8, 2 ngf at 16 x 16, ngf at 32 x 32; for 32 x 32 from 4 ngf at
    4 x 4.

    Args:
        image: channels, height, width; 32 x 32 or 64 x 64.
        latent: D (nz).
        width: ngf.

    References:
        Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
        Networks. ICLR 2016. https://arxiv.org/abs/1511.06434
        Wang, Fu, Li, Khisti, Zemel, Makhzani. Variational Model Inversion Attacks. NeurIPS 2021.
        https://arxiv.org/abs/2201.10787

    Raises:
        InvalidConfigurationError: the image has another size.

    Note:
        The output is (1 + tanh) / 2, in [0, 1], and the discriminator maps it back to the published [-1, 1].

    Note:
        The published layers are for 64 x 64; for 32 x 32 the widest one is left out.
    """

    def __init__(self, image: Image, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        require_square("the DCGAN generator", image, SIDES)
        widths = _widths(image[1], width)[::-1]
        layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1)), *_upsample(latent, widths[0], stride=1, padding=0)]
        for inputs, outputs in itertools.pairwise(widths):
            layers += _upsample(inputs, outputs, stride=2, padding=1)
        last = nn.ConvTranspose2d(widths[-1], image[0], 4, stride=2, padding=1, bias=False)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())
        self.latent = latent

    def forward(self, z: Tensor) -> Tensor:
        """Images `N C H W` in [0, 1] of latents `N D`."""
        x: Tensor = (1 + self.layers(z)) / 2
        return x


class DCDiscriminator(nn.Module):
    """Discriminator of 4 x 4 convolutions with batch norm (not in the first) and LeakyReLU(0.2).

    Args:
        image: channels, height, width; 32 x 32 or 64 x 64.
        width: ndf.
        spectral: divide the weight of each convolution by its largest singular value.

    References:
        Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
        Networks. ICLR 2016. https://arxiv.org/abs/1511.06434
        Miyato, Kataoka, Koyama, Yoshida. Spectral Normalization for Generative Adversarial Networks. ICLR 2018.
        https://arxiv.org/abs/1802.05957

    Raises:
        InvalidConfigurationError: the image has another size.

    Note:
        The output is a logit, for binary cross-entropy with logits, which contains the published sigmoid.
    """

    def __init__(self, image: Image, width: int = 64, *, spectral: bool = False) -> None:
        super().__init__()
        require_square("the DCGAN discriminator", image, SIDES)
        widths = _widths(image[1], width)
        layers: list[nn.Module] = [nn.Conv2d(image[0], width, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
        for inputs, outputs in itertools.pairwise(widths):
            convolution = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(widths[-1], 1, 4, bias=False))
        if spectral:
            layers = [nn.utils.parametrizations.spectral_norm(x) if isinstance(x, nn.Conv2d) else x for x in layers]
        self.layers = nn.Sequential(*layers, nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `N` of images `N C H W` in [0, 1]; higher is more real."""
        logits: Tensor = self.layers(2 * x - 1)
        return logits


def _widths(height: int, width: int) -> list[int]:
    """Channels at each halving of the image, down to 4 x 4."""
    return [width, 2 * width, 4 * width] + ([8 * width] if height == 64 else [])


def _upsample(inputs: int, outputs: int, *, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=stride, padding=padding, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
