"""Networks by name."""

from __future__ import annotations

from .classifiers.network import Network
from .embedders.embedder import Embedder
from .perceptual.perceptual import Perceptual


def build(name: str, image: tuple[int, int, int], classes: int, *, pretrained: bool = False) -> Network:
    """A registered network for images of one shape.

    Args:
        name: in `privbench list networks`.
        image: channels, height, width.
        classes: K.
        pretrained: start from the published weights.

    Raises:
        UnknownComponentError: nothing registers the name.
        InvalidConfigurationError: the network cannot take such images.
        MissingDataError: the published weights are not here and cannot be fetched.
    """
    from ..registry import load

    network: Network = load("network", name)(image, classes, pretrained=pretrained)
    return network


def embedder(name: str, *, pretrained: bool = True) -> Embedder:
    """A registered embedder in evaluation mode, its weights fixed.

    Args:
        name: in `privbench list embedders`.
        pretrained: take its named weights; otherwise random ones.

    Raises:
        UnknownComponentError: nothing registers the name.
        MissingDataError: the weights are not here and cannot be fetched, or are damaged.
    """
    from ..registry import load

    network: Embedder = load("embedder", name)(pretrained=pretrained)
    return network.eval().requires_grad_(False)


def perceptual(name: str, *, pretrained: bool = True) -> Perceptual:
    """A registered perceptual network in evaluation mode, its weights fixed.

    Args:
        name: in `privbench list perceptuals`.
        pretrained: take its named weights; otherwise random ones.

    Raises:
        UnknownComponentError: nothing registers the name.
        MissingDataError: the weights are not here and cannot be fetched, or are damaged.
    """
    from ..registry import load

    network: Perceptual = load("perceptual", name)(pretrained=pretrained)
    return network.eval().requires_grad_(False)
