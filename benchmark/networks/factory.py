"""Networks, embedders and perceptual networks by their registered names."""

import torch

from ..core.config import Protocol
from ..registry import load
from .classifiers.network import Network
from .embedders.embedder import Embedder
from .perceptual.perceptual import Perceptual


def build_network(name: str, image: tuple[int, int, int], classes: int, *, pretrained: bool = False) -> Network:
    """Build a registered network for images of one shape.

    Args:
        name: in `privbench list networks`.
        image: channels, height, width.
        classes: K.
        pretrained: start from the published weights.

    Raises:
        UnknownComponentError: no network has this name.
        InvalidConfigurationError: the network does not support such images.
        MissingDataError: the published weights are missing or damaged.
    """
    network: Network = load("network", name)(image, classes, pretrained=pretrained)
    return network


def build_embedder(name: str, *, pretrained: bool = True) -> Embedder:
    """Build a registered embedder, frozen and in evaluation mode.

    Args:
        name: in `privbench list embedders`.
        pretrained: load its weights; otherwise they are random.

    Raises:
        UnknownComponentError: no embedder has this name.
        MissingDataError: the weights are missing or damaged.
    """
    network: Embedder = load("embedder", name)(pretrained=pretrained)
    return network.eval().requires_grad_(False)


def require_embeddable(name: str, protocol: Protocol) -> None:
    """Refuse images that a registered embedder does not support; its weights are not read.

    Raises:
        UnknownComponentError: no embedder has this name.
        InvalidConfigurationError: the embedder does not support the protocol's images.
    """
    build_embedder(name, pretrained=False).embed(torch.zeros(0, *protocol.image), protocol)


def build_perceptual(name: str) -> Perceptual:
    """Build a registered perceptual network with its weights, frozen and in evaluation mode.

    Args:
        name: in `privbench list perceptuals`.

    Raises:
        UnknownComponentError: no perceptual network has this name.
        MissingDataError: the weights are missing or damaged.
    """
    network: Perceptual = load("perceptual", name)()
    return network.eval().requires_grad_(False)
