"""Laws of perceptual networks, which say how alike two images look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .check import made, require
from .component import ComponentUnderTest
from .configuration import described, registered


def distances(subject: ComponentUnderTest) -> None:
    """The distance of two images is above 0, of equal ones 0, for grey images of any size."""
    network, (a, b) = _network(subject), _pair()
    with torch.inference_mode():
        found, same = network.distance(a, b), network.distance(a, a)
    right = tuple(found.shape) == (len(a),)
    require(right and bool((found > 0).all()), f"two pairs are {found.tolist()} apart", "give a distance above 0 each")
    require(float(same.abs().max()) == 0, f"equal images are {same.tolist()} apart", "give 0 for equal images")


def gradient(subject: ComponentUnderTest) -> None:
    """The distance has a gradient at the image."""
    a, b = _pair()
    distance = _network(subject).distance(a.requires_grad_(), b).sum()
    found = torch.autograd.grad(distance, a, allow_unused=True)[0] if distance.requires_grad else None
    require(found is not None and float(found.abs().sum()) > 0, "it has no gradient at the image", "leave out detach")


def inputs(subject: ComponentUnderTest) -> None:
    """It leaves the images as they were."""
    pair = _pair()
    before = pair.clone()
    with torch.inference_mode():
        _network(subject).distance(pair[0], pair[1])
    require(torch.equal(pair, before), "it changes its input", "do not use in-place operations on the input")


def _network(subject: ComponentUnderTest) -> Any:
    return subject.once("network", lambda: subject.cls(pretrained=False).eval())


def _pair() -> Tensor:
    return torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


LAWS = made("perceptual", registered, described, distances, gradient, inputs)
