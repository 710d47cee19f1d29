"""Generator of GMI and KED-MI."""

from torch import Tensor, nn

from ...benchmark.networks.classifiers.requirements import Image, require_square

#: Heights and widths of the published networks of GMI and KED-MI, in pixels.
SIDES = (32, 64)


class Generator(nn.Module):
    """Generator of transposed convolutions, as in GMI and KED-MI.

    A linear layer to 4 x 4 (512 channels for 64 x 64 images, 256 for 32 x 32), then transposed 5 x 5 convolutions of
    stride 2 that halve the channels down to 64, each with batch norm and ReLU, then one to the image and a sigmoid.

    Args:
        image: channels, height, width; 32 x 32 or 64 x 64.
        latent: D.

    References:
        Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
        Networks. CVPR 2020. https://arxiv.org/abs/1911.07135
        Chen, Kahla, Jia, Qi. Knowledge-Enriched Distributional Model Inversion Attacks. ICCV 2021.
        https://arxiv.org/abs/2010.04092

    Raises:
        InvalidConfigurationError: the image has another size.

    Example:
        >>> import torch
        >>> Generator((1, 32, 32))(torch.zeros(2, 100)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, image: Image, latent: int = 100) -> None:
        super().__init__()
        require_square("the GMI generator", image, SIDES)
        channels, height, _ = image
        width = 8 * height
        layers: list[nn.Module] = [
            nn.Linear(latent, 16 * width, bias=False),
            nn.BatchNorm1d(16 * width),
            nn.ReLU(),
            nn.Unflatten(1, (width, 4, 4)),
        ]
        while width > 64:
            layers += [_upsample(width, width // 2, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU()]
            width //= 2
        self.layers = nn.Sequential(*layers, _upsample(width, channels, bias=True), nn.Sigmoid())
        self.latent = latent

    def forward(self, z: Tensor) -> Tensor:
        """Images `N C H W` in [0, 1] of latents `N D`."""
        x: Tensor = self.layers(z)
        return x


def _upsample(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=bias)
