"""Published weights: found in torch.hub's cache or fetched, verified, and read as tensors only."""

import hashlib
import os
import pickle
import re
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import MissingDataError
from ...files import atomic

#: Seconds to wait for the next bytes of a server.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Published:
    """A published file of weights.

    Args:
        title: for messages, such as `the ImageNet weights of vgg16_bn`.
        url: of the file; a hexadecimal suffix of its name (`-6c64b313.pth`) is the start of its SHA-256.
        otherwise: what the user can do without the file, the end of a sentence.
    """

    title: str
    url: str
    otherwise: str = "or train from scratch with --set dataset.pretrained=false"

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def digest(self) -> str | None:
        """Start of the SHA-256 of the file, if its name contains it."""
        found = re.search(r"-([0-9a-f]{8,64})\.pth$", self.file)
        return found[1] if found else None

    @property
    def path(self) -> Path:
        """Path to download to, in the checkpoints of torch.hub."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def find(self) -> Path | None:
        """Find the file in the folder of torch.hub or that of facenet-pytorch; `None` if it is in neither."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
        older = Path(os.environ.get("TORCH_HOME") or home).expanduser() / "checkpoints" / self.file
        return next((path for path in (self.path, older) if path.is_file()), None)

    def problem(self) -> str | None:
        """Describe why the weights are not available locally; `None` if they are."""
        path = self.find()
        if path is None:
            return f"expected {self.title} at {self.path}, found nothing; put {self.url} there, {self.otherwise}"
        return self._damage(path)

    def load(self) -> dict[str, Tensor]:
        """Load the weights by name; they are fetched if missing.

        Raises:
            MissingDataError: they are missing and cannot be fetched, or are damaged.
        """
        path = self.find() or self.fetch()
        damage = self._damage(path)
        if damage:
            raise MissingDataError(damage)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as cause:
            raise MissingDataError(self._advice(path, "is damaged or contains more than weights")) from cause
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise MissingDataError(self._advice(path, "does not contain named weights"))
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
        """Download the file to `path`, verified and atomically; an earlier file there is replaced.

        Raises:
            MissingDataError: it cannot be fetched, or is not the expected file.
        """
        path = self.path
        try:
            with atomic.replaced_file(path) as part:
                with urllib.request.urlopen(self.url, timeout=TIMEOUT) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                if self._damage(part):
                    raise MissingDataError(
                        f"expected {self.url} to be {self.title}, got something else; put the file at {path}, "
                        f"{self.otherwise}"
                    )
        except MissingDataError:
            raise
        except OSError as cause:
            reason = getattr(cause, "reason", None) or cause
            raise MissingDataError(
                f"expected {self.title} at {path}, found nothing, and {self.url} cannot be fetched ({reason}); "
                f"put the file there, {self.otherwise}"
            ) from cause
        return path


def imagenet(name: str) -> Published:
    """Source of the first ImageNet weights of a classifier of torchvision, such as `vgg16_bn`."""
    from torchvision.models import get_model_weights

    return Published(f"the ImageNet weights of {name}", get_model_weights(name)["IMAGENET1K_V1"].url)


def vggface2() -> Published:
    """Source of the VGGFace2 weights of facenet-pytorch's InceptionResnetV1."""
    release = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
    return Published("the VGGFace2 weights of facenet", f"{release}/20180402-114759-vggface2.pt")


def imagenet_state(name: str) -> dict[str, Tensor]:
    """Load the ImageNet weights of a classifier of torchvision, by name.

    Raises:
        MissingDataError: they are missing and cannot be fetched, or are damaged.
    """
    return imagenet(name).load()


def vggface2_state() -> dict[str, Tensor]:
    """Load the VGGFace2 weights of facenet-pytorch by name, including its classifier `logits`.

    Raises:
        MissingDataError: they are missing and cannot be fetched, or are damaged.

    Note:
        The loader of facenet-pytorch unpickles what it downloads; this one reads tensors only.
    """
    return vggface2().load()


def transfer(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights by name; names must match exactly.

    The counters of batch norm, which older files lack, are left out and start at 0.

    Raises:
        MissingDataError: a name is missing or unexpected, or a shape differs.
    """
    given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    names = sorted(given.keys() ^ wanted.keys()) or [key for key in wanted if given[key].shape != wanted[key].shape]
    if names:
        raise MissingDataError(f"expected {source} to fit the network, got another {names[0]}; replace the file")
    module.load_state_dict(given, strict=True)
