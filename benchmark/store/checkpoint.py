"""State of an unfinished stage, one file a loop: a sealed line of JSON, then the tensors as safetensors."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import CorruptArtifactError
from ..files import atomic
from ..files.tensors import pack, unpack
from .layout import StoreLayout
from .manifest import FORMAT, seal, unseal

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("privbench")
ENDING = ".checkpoint"
Groups = dict[str, dict[str, "Tensor"]]


class Checkpoint:
    """Checkpoints of one unfinished stage, whose lock the caller holds.

    Args:
        layout: where they lie.
        kind: of the stage.
        key: of the stage.
    """

    def __init__(self, layout: StoreLayout, kind: str, key: str) -> None:
        self._layout, self._kind, self._key = layout, kind, key
        self._folder = layout.checkpoints(kind, key)

    def load(self, name: str) -> tuple[Groups, dict[str, Any]] | None:
        """Groups of tensors and facts of loop `name`; `None` where there are none.

        A damaged file is dropped with a warning: the loop starts anew.
        """
        path = self._path(name)
        with atomic.storage_errors(path, "read"):
            try:
                header, tensors = verify(atomic.read(path), self._kind, self._key, name)
                return _grouped(header["groups"], unpack(tensors)), header["info"]
            except FileNotFoundError:
                return None
            except CorruptArtifactError as damage:
                path.unlink(missing_ok=True)
                log.warning("checkpoint %r of %s %s is damaged (%s); dropped", name, self._kind, self._key[:12], damage)
                return None

    def save(self, name: str, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
        """Replace the checkpoint of loop `name`; after a crash the old one or the new one is there, whole.

        Raises:
            StorageError: it cannot be written; the old one is still there.
        """
        names = sorted(groups)
        tensors = pack({f"{i}/{key}": value for i, group in enumerate(names) for key, value in groups[group].items()})
        header = seal(
            {
                "format": FORMAT,
                "kind": self._kind,
                "key": self._key,
                "name": name,
                "groups": names,
                "info": dict(info),
                "sha256": hashlib.sha256(tensors).hexdigest(),
            }
        )
        self._layout.prepare()
        temporary = self._layout.temporary(self._kind, self._key)
        with atomic.storage_errors(self._folder):
            try:
                atomic.make_folder(self._folder)
                atomic.write_new(temporary, header + tensors)
                temporary.replace(self._path(name))
                atomic.sync_folder(self._folder)
            finally:
                temporary.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the checkpoints of all loops of the stage."""
        with atomic.storage_errors(self._folder, "remove"):
            atomic.remove(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / (quote(name, safe="") + ENDING)


def verify(data: bytes, kind: str, key: str, name: str | None = None) -> tuple[dict[str, Any], bytes]:
    """Header and safetensors bytes of a checkpoint.

    Args:
        data: the file.
        kind: what the header must say.
        key: what the header must say.
        name: what the header must say, if given.

    Raises:
        CorruptArtifactError: a byte was changed, or it is of another stage or loop.
    """
    line, _, tensors = data.partition(b"\n")
    header = unseal(line + b"\n")
    if (header["format"], header["kind"], header["key"]) != (FORMAT, kind, key) or name not in (None, header["name"]):
        raise CorruptArtifactError(f"it is of loop {header['name']!r} of {header['kind']} {header['key'][:12]}")
    if hashlib.sha256(tensors).hexdigest() != header["sha256"]:
        raise CorruptArtifactError("its checksum does not match")
    return header, tensors


def _grouped(names: list[str], tensors: dict[str, Tensor]) -> Groups:
    groups: Groups = {name: {} for name in names}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        groups[names[int(index)]][key] = tensor
    return groups
