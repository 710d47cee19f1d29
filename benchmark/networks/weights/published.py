"""Published weights: found in the cache of torch.hub or fetched, verified, read without unpickling code."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import MissingDataError

#: Seconds that a server may keep silent.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Published:
    """A file of weights that somebody published.

    Args:
        title: what it is, such as `the ImageNet weights of vgg16_bn`.
        url: where it is published; a hexadecimal suffix of the file name (`-6c64b313.pth`) starts its SHA-256.
        otherwise: what else a user can do who lacks it, the end of a sentence.
    """

    title: str
    url: str
    otherwise: str = "or train from scratch with --set dataset.pretrained=false"

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def digest(self) -> str | None:
        """How the SHA-256 of the file starts, where its name says so."""
        found = re.search(r"-([0-9a-f]{8,64})\.pth$", self.file)
        return found[1] if found else None

    @property
    def place(self) -> Path:
        """Where the file is put: the checkpoints of torch.hub."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def find(self) -> Path | None:
        """The file on this machine: in the folder of torch.hub or that of facenet-pytorch; `None` if in neither."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
        older = Path(os.environ.get("TORCH_HOME") or home).expanduser() / "checkpoints" / self.file
        return next((path for path in (self.place, older) if path.is_file()), None)

    def problem(self) -> str | None:
        """Why the weights cannot be had without a network, in one sentence; `None` if they can."""
        path = self.find()
        if path is None:
            return f"expected {self.title} at {self.place}, found nothing; put {self.url} there, {self.otherwise}"
        return self._damage(path)

    def load(self) -> dict[str, Tensor]:
        """The weights by name, fetched if they are not here.

        Raises:
            MissingDataError: they are not here and cannot be fetched, or are damaged.
        """
        path = self.find() or self.fetch()
        damage = self._damage(path)
        if damage:
            raise MissingDataError(damage)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as cause:
            raise MissingDataError(self._advice(path, "is damaged or holds more than weights")) from cause
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise MissingDataError(self._advice(path, "does not hold named weights"))
        return dict(state)

    def _damage(self, path: Path) -> str | None:
        with path.open("rb") as stream:
            if stream.read(512).lstrip().startswith(b"<"):
                return self._advice(path, "is a web page, not weights")
            stream.seek(0)
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.digest and not found.startswith(self.digest):
            return self._advice(path, f"has a SHA-256 that starts with {found[: len(self.digest)]}, not {self.digest}")
        return None

    def _advice(self, path: Path, fault: str) -> str:
        return f"{path} {fault}; replace it by {self.url}, {self.otherwise}"

    def fetch(self) -> Path:
        """Download the file to `place`, whole and verified or not at all; one that is there is replaced.

        Raises:
            MissingDataError: it cannot be fetched, or is not what it should be.
        """
        place = self.place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent) as folder:
                part = Path(folder) / self.file
                with urllib.request.urlopen(self.url, timeout=TIMEOUT) as source, part.open("wb") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
                damage = self._damage(part)
                if damage is None:
                    return part.replace(place)
        except OSError as cause:
            reason = getattr(cause, "reason", None) or cause
            raise MissingDataError(
                f"expected {self.title} at {place}, found nothing, and {self.url} cannot be fetched ({reason}); "
                f"put the file there, {self.otherwise}"
            ) from cause
        raise MissingDataError(
            f"expected {self.url} to give {self.title}, got something else; put the file at {place}, {self.otherwise}"
        )


def imagenet(name: str) -> Published:
    """The first ImageNet weights of one of torchvision's classifiers, such as `vgg16_bn`."""
    from torchvision.models import get_model_weights

    return Published(f"the ImageNet weights of {name}", get_model_weights(name)["IMAGENET1K_V1"].url)


def vggface2() -> Published:
    """The VGGFace2 weights of facenet-pytorch's InceptionResnetV1."""
    release = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
    return Published("the VGGFace2 weights of facenet", f"{release}/20180402-114759-vggface2.pt")


def imagenet_state(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of one of torchvision's classifiers, by name.

    Raises:
        MissingDataError: they are not here and cannot be fetched, or are damaged.
    """
    return imagenet(name).load()


def vggface2_state() -> dict[str, Tensor]:
    """The VGGFace2 weights of facenet-pytorch by name, its classifier `logits` among them.

    Raises:
        MissingDataError: they are not here and cannot be fetched, or are damaged.

    Note:
        facenet-pytorch's own loader unpickles what it downloads; this one reads tensors only.
    """
    return vggface2().load()


def transfer(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights by name; names must agree exactly.

    The batch counters of batch norm, which older files lack, are left out and start at 0.

    Raises:
        MissingDataError: a name is missing or unexpected, or a shape differs.
    """
    given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    odd = sorted(given.keys() ^ wanted.keys()) or [key for key in wanted if given[key].shape != wanted[key].shape]
    if odd:
        raise MissingDataError(f"expected {source} to fit the network, got another {odd[0]}; replace the file")
    module.load_state_dict(given, strict=True)
