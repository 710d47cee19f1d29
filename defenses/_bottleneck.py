"""The variational bottleneck of MID, and how it is put into a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmark.networks.classifiers.network import Network

#: Subtracted before the softplus, so that the noise starts small: softplus(-5) = 0.0067.
SHIFT = 5.0


class Bottleneck(nn.Module):
    """Maps a feature `m d` to a Gaussian code `m k` with `k = d // 2`.

    `z = mu + sigma e`, `sigma = softplus(s - 5)`, `e ~ N(0, I)`, where (mu, s) are the halves of a linear map.

    Args:
        features: d, at least 2.
        test_noise: draw e in evaluation mode too; if not, z = mu there.
    """

    def __init__(self, features: int, *, test_noise: bool = True) -> None:
        super().__init__()
        self.size = features // 2
        self.test_noise = test_noise
        self.linear = nn.Linear(features, 2 * self.size)

    def statistics(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Mean mu and scale sigma, each `m k`, of the code of a feature `m d`."""
        mean, raw = self.linear(feature).chunk(2, dim=1)
        return mean, functional.softplus(raw - SHIFT)

    def sample(self, mean: Tensor, scale: Tensor) -> Tensor:
        """One code z for each sample, `m k`."""
        return mean + scale * torch.randn_like(scale) if self.training or self.test_noise else mean

    @staticmethod
    def divergence(mean: Tensor, scale: Tensor) -> Tensor:
        """`KL(N(mu, sigma^2) || N(0, I)) = -1/2 sum_k (1 + 2 ln sigma - mu^2 - sigma^2)`, in nats, `m`."""
        log = scale.clamp_min(torch.finfo(scale.dtype).tiny).log()
        return -0.5 * (1 + 2 * log - mean.square() - scale.square()).sum(1)

    def forward(self, feature: Tensor) -> Tensor:
        """A code z of the feature."""
        return self.sample(*self.statistics(feature))


def insert(network: Network, classes: int, *, test_noise: bool) -> Network:
    """The backbone of `network`, then a stage `bottleneck` and a new linear stage `logits`.

    Where the backbone ends is the network's affair: VGG's without its last batch norm, ResNet-34's at `fc1`.

    Args:
        network: its stages are reused, not copied.
        classes: K.
        test_noise: see `Bottleneck`.

    Raises:
        InvalidConfigurationError: the network does not say where its backbone ends.
    """
    stages, width = network.backbone()
    bottleneck = Bottleneck(width, test_noise=test_noise)
    return Network({**stages, "bottleneck": bottleneck, "logits": nn.Linear(bottleneck.size, classes)})
