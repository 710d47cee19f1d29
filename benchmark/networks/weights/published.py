"""Published weights: found in torch.hub's cache, fetched on request, verified, and read as tensors only."""

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
from ...files.stand_ins import HEAD, stand_in

#: Seconds to wait for the next bytes of a server.
TIMEOUT = 10.0
#: What wrappers put before the names of a state dict: `nn.DataParallel` and its successors, and `torch.compile`.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Published:
    """A published file of weights.

    Args:
        name: in `privbench weights ls`.
        title: for messages, such as `the ImageNet weights of vgg16_bn`.
        url: of the file; a hexadecimal suffix of its name (`-6c64b313.pth`) is the start of its SHA-256.
    """

    name: str
    title: str
    url: str

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

    def fault(self) -> str | None:
        """Say what is wrong with the local file, in words that follow its name; `None` if it can be used."""
        path = self.find()
        return "is missing" if path is None else self._read(path)[1]

    def problem(self) -> str | None:
        """Describe why the weights are not available locally, and the fix; `None` if they are."""
        fault = self.fault()
        return None if fault is None else self.advice(fault)

    def load(self) -> dict[str, Tensor]:
        """Load the weights by name, without the prefix of `nn.DataParallel`. Downloads nothing.

        Raises:
            MissingDataError: they are missing or damaged.
        """
        path = self.find()
        state, fault = ({}, "is missing") if path is None else self._read(path, whole=True)
        if fault:
            raise MissingDataError(self.advice(fault))
        return state

    def _read(self, path: Path, *, whole: bool = False) -> tuple[dict[str, Tensor], str | None]:
        """Read a file: the weights, or what is wrong with it.

        Args:
            path: of the file.
            whole: read the tensors; a file with a published checksum is otherwise only hashed.
        """
        fault = self._damage(path)
        if fault or (self.digest and not whole):
            return {}, fault
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
            return {}, "is truncated, damaged or contains more than weights"
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            return {}, "does not contain named weights"
        return unwrapped(state), None

    def _damage(self, path: Path) -> str | None:
        with path.open("rb") as stream:
            if found := stand_in(stream.read(HEAD)):
                return f"is {found}, not weights"
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.digest and not digest.startswith(self.digest):
            return f"has a SHA-256 that starts with {digest[: len(self.digest)]}, not {self.digest}"
        return None

    def advice(self, fault: str) -> str:
        """Return the sentence that names the file, its fault and the fix."""
        path, command = self.find(), f"run `privbench weights fetch {self.name}`"
        if path is None:
            return f"expected {self.title} at {self.path}, found nothing; {command}, or put {self.url} there"
        return f"{path} {fault}; {command}, or replace it by {self.url}"

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
                        "or try again"
                    )
        except MissingDataError:
            raise
        except OSError as cause:
            reason = getattr(cause, "reason", None) or cause
            raise MissingDataError(
                f"expected {self.title} at {path}, found nothing, and {self.url} cannot be fetched ({reason}); "
                "put the file there, or try again"
            ) from cause
        return path


def imagenet(name: str) -> Published:
    """Source of the first ImageNet weights of a classifier of torchvision, such as `vgg16_bn`."""
    from torchvision.models import get_model_weights

    return Published(name, f"the ImageNet weights of {name}", get_model_weights(name)["IMAGENET1K_V1"].url)


def vggface2() -> Published:
    """Source of the VGGFace2 weights of facenet-pytorch's InceptionResnetV1."""
    release = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
    return Published("facenet_vggface2", "the VGGFace2 weights of facenet", f"{release}/20180402-114759-vggface2.pt")


def inception() -> Published:
    """Source of the Inception weights of pytorch-fid, a port of TensorFlow's."""
    release = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"
    return Published(
        "inception_fid", "the Inception weights of pytorch-fid", f"{release}/pt_inception-2015-12-05-6726825d.pth"
    )


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix that `nn.DataParallel` or `torch.compile` puts before all names of a state dict.

    Example:
        >>> list(unwrapped({"module.fc.weight": torch.zeros(1), "module.fc.bias": torch.zeros(1)}))
        ['fc.weight', 'fc.bias']
    """
    found = dict(state)
    while prefix := next((p for p in _WRAPPERS if found and all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def imagenet_state(name: str) -> dict[str, Tensor]:
    """Load the ImageNet weights of a classifier of torchvision, by name.

    Raises:
        MissingDataError: they are missing or damaged.
    """
    return imagenet(name).load()


def vggface2_state() -> dict[str, Tensor]:
    """Load the VGGFace2 weights of facenet-pytorch by name, including its classifier `logits`.

    Raises:
        MissingDataError: they are missing or damaged.

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
