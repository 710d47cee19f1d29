"""Checks of embedders, which map an image to one vector."""

from typing import Any

import torch
from torch import Tensor

from ..core.config import Protocol
from ..errors import InvalidConfigurationError
from .assertions import require_close, require_gradient, require_input_unchanged
from .check import checks_from, fail, require
from .component import ComponentUnderTest
from .configuration import described, registered
from .key import require_hashed
from .samples import Sample
from .watch import watch

_SIDE = 64


def vectors(subject: ComponentUnderTest) -> None:
    """Embeddings are float32 vectors of unit length that do not depend on the batch; no images give none."""
    network, x = _network(subject), _x()
    with torch.inference_mode():
        found = network.embed(x, _faces())
        valid = found.dtype == torch.float32 and found.ndim == 2 and len(found) == len(x)
        require(valid, f"embed returns {found.dtype} {tuple(found.shape)}", "return float32 N D")
        length = found.norm(dim=1)
        require(bool(torch.allclose(length, torch.ones(2))), "a vector's length is not 1", "divide by the L2 norm")
        alone = network.embed(x[:1], _faces())
        fix = "use running statistics, not those of the batch"
        require_close(alone, found[:1], "the vector of an image depends on the batch", fix)
        none = tuple(network.embed(x[:0], _faces()).shape)
        require(none == (0, found.shape[1]), f"for no images it returns {none}", "return (0, D)")


def key(subject: ComponentUnderTest) -> None:
    """The content of files that the embedder reads is in the keys of what uses it."""
    with watch(offline=True) as reads, torch.inference_mode():
        subject.cls().eval().embed(_x(), _faces())
    require_hashed(subject, reads, subject.cls.files(), "files()")


def gradient(subject: ComponentUnderTest) -> None:
    """The embedding has a gradient with respect to the image."""
    require_gradient(lambda x: _network(subject).embed(x, _faces())[:, 0], _x())


def inputs(subject: ComponentUnderTest) -> None:
    """Embedding does not change the images."""
    require_input_unchanged(lambda x: _network(subject).embed(x, _faces()), _x())


def faces(subject: ComponentUnderTest) -> None:
    """An embedder of faces rejects images of data sets without faces; other embedders accept them."""
    network, without_faces = _network(subject), _faces().model_copy(update={"face_box": None})
    with torch.inference_mode():
        try:
            network.embed(_x(), without_faces)
        except InvalidConfigurationError:
            require(network.faces, "it rejects images without a face_box", "accept them, or declare faces = True")
            return
    if network.faces:
        fail(
            "it embeds images that are no faces",
            "raise InvalidConfigurationError if protocol.face_box is None, or declare faces = False",
        )


def _network(subject: ComponentUnderTest) -> Any:
    return subject.cached("network", lambda: subject.cls(pretrained=False).eval())


def _faces() -> Protocol:
    return Sample(image=(3, _SIDE, _SIDE)).protocol.model_copy(update={"face_box": (35, 55, 108, 108)})


def _x() -> Tensor:
    return torch.rand(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))


CHECKS = checks_from("embedder", registered, described, key, vectors, gradient, inputs, faces)
