"""Checks of perceptual networks, which measure how different two images look."""

from typing import Any

import torch
from torch import Tensor

from .assertions import require_gradient, require_input_unchanged
from .check import checks_from, require
from .component import ComponentUnderTest
from .configuration import described, registered
from .key import require_hashed
from .watch import watch


def distances(subject: ComponentUnderTest) -> None:
    """The distance of two images is above 0, of equal images 0, for grey images of any size."""
    network, (a, b) = _network(subject), _pair()
    with torch.inference_mode():
        found, same = network.distance(a, b), network.distance(a, a)
    valid = tuple(found.shape) == (len(a),) and bool((found > 0).all())
    require(valid, f"two pairs are {found.tolist()} apart", "return a distance above 0 for each pair")
    require(float(same.abs().max()) == 0, f"equal images are {same.tolist()} apart", "return 0 for equal images")


def key(subject: ComponentUnderTest) -> None:
    """The content of files that the network reads is in the keys of what uses it."""
    with watch(offline=True) as reads, torch.inference_mode():
        subject.cls().distance(*_pair())
    require_hashed(subject, reads, subject.cls.files(), "files()")


def gradient(subject: ComponentUnderTest) -> None:
    """The distance has a gradient with respect to the image."""
    a, b = _pair()
    require_gradient(lambda x: _network(subject).distance(x, b), a)


def inputs(subject: ComponentUnderTest) -> None:
    """Measuring a distance does not change the images."""
    require_input_unchanged(lambda pair: _network(subject).distance(pair[0], pair[1]), _pair())


def _network(subject: ComponentUnderTest) -> Any:
    return subject.cached("network", lambda: subject.cls(pretrained=False).eval())


def _pair() -> Tensor:
    return torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


CHECKS = checks_from("perceptual", registered, described, key, distances, gradient, inputs)
