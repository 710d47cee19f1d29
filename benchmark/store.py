"""Content-addressed store of artifacts: written once and whole, found by key, never trusted unchecked.

ROOT/format.json                    the format of the store
ROOT/KIND/KEY[:2]/KEY/              an artifact: manifest.json, {group}.safetensors, other files
ROOT/checkpoints/KIND/KEY[:2]/KEY/  state of an unfinished stage
ROOT/locks  ROOT/tmp  ROOT/quarantine
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import disk, upkeep
from .checkpoint import Checkpoint
from .errors import CorruptArtifactError
from .folders import Address, store_root
from .manifest import NAME, TENSORS, Artifact, FileFacts, Manifest, check_file_names, examine, seal, unseal
from .shelf import Shelf
from .tensors import pack
from .upkeep import Entry, Problem

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("privbench")
__all__ = ["Address", "Artifact", "Checkpoint", "Entry", "Problem", "Store", "open_store"]


class Store:
    """Artifacts below a folder, which is made when something is first written.

    Any number of processes and threads may use one store. Kinds are names of stages, keys are lower-case hexadecimal
    SHA-256.

    Args:
        root: the folder, or the address of a store.
    """

    def __init__(self, root: Path | Address) -> None:
        #: Where it is; picklable, for `open_store` in another process.
        self.address = root if isinstance(root, Address) else Address(str(Path(root).expanduser().absolute()))
        self._shelf = Shelf(Path(self.address.root))

    @property
    def root(self) -> Path:
        """The folder."""
        return self._shelf.root

    def find(self, kind: str, key: str, *, verify: bool = True) -> Artifact | None:
        """The artifact, or `None` where there is none.

        One that does not match its manifest is moved to the quarantine with a warning, unless another process works
        on the key and will do so itself; it counts as missing.

        Args:
            kind: of the artifact.
            key: of the artifact.
            verify: compare the SHA-256 of every file now; otherwise only names, sizes and the manifest itself are
                checked, and each file when it is read.

        Raises:
            StorageError: the store cannot be read, or is of a newer format.
        """
        with contextlib.suppress(CorruptArtifactError):
            return self._read(kind, key, verify)
        with self._shelf.lock_if_free(kind, key) as free:
            if not free:
                return None
            try:
                return self._read(kind, key, verify)
            except CorruptArtifactError as damage:
                moved = self._shelf.quarantine(self._shelf.folder(kind, key), kind, key)
                log.warning("%s %s is damaged (%s); moved to %s, to be made again", kind, key[:12], damage, moved)
                return None

    def _read(self, kind: str, key: str, verify: bool) -> Artifact | None:
        folder = self._shelf.folder(kind, key)
        if not self._shelf.exists() or not os.path.lexists(folder):
            return None
        with disk.storage_errors(folder, "read"):
            return Artifact(kind, key, folder, examine(folder, kind, key, contents=verify))

    def write(
        self,
        kind: str,
        key: str,
        *,
        tensors: Mapping[str, Mapping[str, Tensor]],
        info: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Artifact:
        """Store an artifact; where a valid one is there already, it is kept and returned.

        Args:
            kind: of the artifact.
            key: of the artifact.
            tensors: named tensors by group; each group becomes `{group}.safetensors`.
            info: JSON facts, which do not count for the digest.
            inputs: keys of the artifacts it was made from, by role.
            files: other files by name.

        Raises:
            InvalidConfigurationError: a name, tensor or fact that cannot be stored.
            StorageError: no permission, no space, not a folder; nothing of it is left.
        """
        contents = dict(files or {})
        check_file_names(contents, tensors)
        facts = unseal(seal(dict(info)))
        with self._shelf.lock(kind, key):
            found = self.find(kind, key)
            if found is not None:
                return found
            folder, temporary = self._shelf.folder(kind, key), self._shelf.temporary(kind, key)
            manifest = Manifest(kind=kind, key=key, created=_now(), inputs=dict(inputs or {}), info=facts, files={})
            with disk.storage_errors(folder):
                try:
                    temporary.mkdir()
                    manifest = _fill(temporary, manifest, tensors, contents)
                    disk.make_folder(folder.parent)
                    temporary.rename(folder)
                    disk.sync_folder(folder.parent)
                except BaseException:
                    with contextlib.suppress(OSError):
                        disk.remove(temporary)
                    raise
            return Artifact(kind, key, folder, manifest)

    def exists(self, kind: str, key: str) -> bool:
        """Whether something is stored under the key, sound or not."""
        return os.path.lexists(self._shelf.folder(kind, key))

    def discard(self, kind: str, key: str) -> None:
        """Remove an artifact, so that it is made again."""
        with self._shelf.lock(kind, key):
            self._shelf.discard(self._shelf.folder(kind, key), kind, key)

    def lock(self, kind: str, key: str) -> AbstractContextManager[None]:
        """Hold a key: whoever else locks it waits, and is told once for whom. A killed process holds nothing.

        Within one thread it may be taken again, as `write` does.
        """
        return self._shelf.lock(kind, key)

    def checkpoint(self, kind: str, key: str) -> Checkpoint:
        """Checkpoints of an unfinished stage; the caller holds its lock while it uses them."""
        return Checkpoint(self._shelf, kind, key)

    def entries(self) -> Iterator[Entry]:
        """Every artifact, by kind and key, damaged ones included."""
        return upkeep.entries(self._shelf)

    def check(self, *, repair: bool = False) -> list[Problem]:
        """Compare everything in the store with what it should be.

        Args:
            repair: move what is damaged or unknown to the quarantine, and remove what dead processes left.
        """
        return upkeep.check(self._shelf, repair)

    def gc(
        self,
        keep: Callable[[Entry], bool] | Collection[str] | None,
        *,
        older_than_days: float | None = None,
        dry_run: bool = False,
    ) -> list[Entry]:
        """Remove what nobody needs, but nothing that a process is working on.

        Removed are temporary files of dead processes, the quarantine, checkpoints of finished artifacts, and
        artifacts that are not kept. With `older_than_days` only older artifacts are removed, and older checkpoints of
        unfinished ones that are not kept, too.

        Args:
            keep: keys of artifacts to keep, or what says so of each; `None` keeps all artifacts.
            older_than_days: spare younger artifacts.
            dry_run: remove nothing.

        Returns:
            What was removed, or would be.
        """
        return upkeep.collect(self._shelf, keep, older_than_days, dry_run)


def open_store(address: str | Path | Address | None = None) -> Store:
    """The store at an address, a folder or a URL; by default `PRIVBENCH_STORE`, else in the user's cache folder.

    Raises:
        InvalidConfigurationError: a URL that cannot be one of a store.
    """
    return Store(store_root(address))


def _fill(
    folder: Path, manifest: Manifest, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes]
) -> Manifest:
    """Write all files of an artifact, the manifest last."""
    facts = {
        name: FileFacts(bytes=len(data), sha256=disk.write_new(folder / name, data)) for name, data in files.items()
    }
    for group, members in tensors.items():
        data = pack(members)
        name = group + TENSORS
        facts[name] = FileFacts(bytes=len(data), sha256=disk.write_new(folder / name, data))
    sealed = manifest.model_copy(update={"files": facts}).encode()
    disk.write_new(folder / NAME, sealed)
    disk.sync_folder(folder)
    return Manifest.decode(sealed)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
