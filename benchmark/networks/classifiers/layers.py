"""Blocks that several classifiers use."""

from torch import nn


def leaky_block(inputs: int, outputs: int, kernel: int, *, padding: int = 0, pool: bool = False) -> nn.Sequential:
    """Build the block of MCNN and SCNN: convolution, batch norm, LeakyReLU(0.2) and, if `pool`, a 2 x 2 max pool."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, padding=padding),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)


def relu_block(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """Build the block of VGG: `depth` times (3 x 3 convolution, batch norm, ReLU), then a 2 x 2 max pool."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def unshifted_norm(features: int) -> nn.BatchNorm1d:
    """Build a batch norm whose bias is fixed at 0 ("no shift")."""
    norm = nn.BatchNorm1d(features)
    norm.bias.requires_grad_(False)
    return norm
