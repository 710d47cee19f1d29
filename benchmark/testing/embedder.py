"""Laws of embedders, which compare images by one vector each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.config import Protocol
from ..errors import InvalidConfigurationError
from .check import broken, made, require
from .component import ComponentUnderTest
from .configuration import described, registered
from .samples import Sample

_SIDE = 64


def vectors(subject: ComponentUnderTest) -> None:
    """It gives float32 vectors of unit length, the same for an image alone as in company, and none of no images."""
    network, x = _network(subject), _x()
    with torch.inference_mode():
        found = network.embed(x, _faces())
        right = found.dtype == torch.float32 and found.ndim == 2 and len(found) == len(x)
        require(right, f"embed gives {found.dtype} {tuple(found.shape)}", "give float32 N D")
        length = found.norm(dim=1)
        require(bool(torch.allclose(length, torch.ones(2))), "a vector's length is not 1", "divide by the L2 norm")
        alone = network.embed(x[:1], _faces())
        same = torch.allclose(alone, found[:1], rtol=1e-4, atol=1e-5)
        require(same, "an image has another vector in company", "use running statistics, none of the batch")
        none = tuple(network.embed(x[:0], _faces()).shape)
        require(none == (0, found.shape[1]), f"of no images it gives {none}", "give (0, D)")


def gradient(subject: ComponentUnderTest) -> None:
    """Its vectors have a gradient at the image."""
    x = _x().requires_grad_()
    vector = _network(subject).embed(x, _faces())[:, 0].sum()
    found = torch.autograd.grad(vector, x, allow_unused=True)[0] if vector.requires_grad else None
    require(found is not None and float(found.abs().sum()) > 0, "it has no gradient at the image", "leave out detach")


def inputs(subject: ComponentUnderTest) -> None:
    """It leaves the images as they were."""
    x = _x()
    before = x.clone()
    with torch.inference_mode():
        _network(subject).embed(x, _faces())
    require(torch.equal(x, before), "it changes its input", "do not use in-place operations on the input")


def faces(subject: ComponentUnderTest) -> None:
    """It looks for faces only where the protocol says that there are some, if it is made for faces."""
    network, elsewhere = _network(subject), _faces().model_copy(update={"face_box": None})
    with torch.inference_mode():
        try:
            network.embed(_x(), elsewhere)
        except InvalidConfigurationError:
            require(network.faces, "it refuses images without a face_box", "take them, or declare faces = True")
            return
    if network.faces:
        broken(
            "it embeds images that are no faces",
            "raise InvalidConfigurationError where protocol.face_box is None, or declare faces = False",
        )


def _network(subject: ComponentUnderTest) -> Any:
    return subject.once("network", lambda: subject.cls(pretrained=False).eval())


def _faces() -> Protocol:
    return Sample(image=(3, _SIDE, _SIDE)).protocol.model_copy(update={"face_box": (35, 55, 108, 108)})


def _x() -> Tensor:
    return torch.rand(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))


LAWS = made("embedder", registered, described, vectors, gradient, inputs, faces)
