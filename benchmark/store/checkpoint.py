"""Checkpoints of an unfinished stage, one file for each loop: a sealed line of JSON, then safetensors."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import Field

from ..errors import CorruptArtifactError
from ..files import atomic
from ..files.tensors import flatten, pack, unflatten, unpack
from ..files.tree import Tree
from .layout import StoreLayout
from .manifest import MAX_BYTES, Sealed

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("privbench")
ENDING = ".checkpoint"
#: Bytes of the first line.
_MAX_HEADER = MAX_BYTES + 100
Groups = dict[str, dict[str, "Tensor"]]


class Header(Sealed):
    """First line of a checkpoint."""

    name: str
    groups: list[str]
    info: dict[str, Any]
    bytes: int = Field(ge=0, description="size of the tensors, so that a file of another size is not read")
    sha256: str


class Checkpoint:
    """Checkpoints of one unfinished stage, whose lock the caller holds.

    Args:
        layout: of the store.
        kind: of the stage.
        key: of the stage.
    """

    def __init__(self, layout: StoreLayout, kind: str, key: str) -> None:
        self._layout, self._kind, self._key = layout, kind, key
        self._folder = layout.checkpoints(kind, key)

    def load(self, name: str) -> tuple[Groups, dict[str, Any]] | None:
        """Load the groups of tensors and the JSON values of loop `name`; `None` if there is no checkpoint.

        A damaged checkpoint is deleted with a warning: the loop restarts.
        """
        path = self._path(name)
        with atomic.storage_errors(path, "read"):
            try:
                header, tensors = read(self._layout.tree, path, self._kind, self._key, name)
                return unflatten(header.groups, unpack(tensors)), header.info
            except FileNotFoundError:
                return None
            except CorruptArtifactError as damage:
                self._layout.tree.remove(path)
                log.warning("checkpoint %r of %s %s is damaged (%s); deleted", name, self._kind, self._key[:12], damage)
                return None

    def save(self, name: str, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
        """Replace the checkpoint of loop `name`; after a crash the old or the new one is there, whole.

        Raises:
            StorageError: it cannot be written; the old one is kept.
        """
        names, flat = flatten(groups)
        tensors = pack(flat)
        header = Header(
            kind=self._kind,
            key=self._key,
            name=name,
            groups=names,
            info=dict(info),
            bytes=len(tensors),
            sha256=hashlib.sha256(tensors).hexdigest(),
        ).encode()
        self._layout.prepare()
        path, temporary = self._path(name), self._layout.temporary(self._kind, self._key)
        with atomic.storage_errors(self._folder):
            self._layout.tree.replace_file(path, temporary, [header, tensors])

    def clear(self) -> None:
        """Remove the checkpoints of all loops of the stage."""
        with atomic.storage_errors(self._folder, "remove"):
            self._layout.tree.remove(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / (quote(name, safe="") + ENDING)


def read(tree: Tree, path: Path, kind: str, key: str, name: str | None = None) -> tuple[Header, bytes]:
    """Read and check a checkpoint; returns its header and its safetensors bytes.

    Args:
        tree: of the store.
        path: of the file.
        kind: that the header must have.
        key: that the header must have.
        name: of the loop, that the header must have, if given.

    Raises:
        CorruptArtifactError: it is not a regular file, a byte was changed, or it belongs to another stage or loop.
        OSError: it cannot be read.
    """
    with tree.open(path) as file:
        line = file.readline(_MAX_HEADER)
        header = Header.decode(line, kind, key)
        if name not in (None, header.name):
            raise CorruptArtifactError(f"it belongs to loop {header.name!r}")
        if os.fstat(file.fileno()).st_size != len(line) + header.bytes:
            raise CorruptArtifactError("its size does not match")
        tensors = file.read(header.bytes)
    if hashlib.sha256(tensors).hexdigest() != header.sha256:
        raise CorruptArtifactError("its checksum does not match")
    return header, tensors
