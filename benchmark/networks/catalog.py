"""Networks by name."""

from __future__ import annotations

from .network import Network


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
