"""Store of artifacts: written once and atomically, found by key, verified when read.

A store at a URL has a second tier, which several machines share (see `shared`); its folder is then the local tier.

ROOT/format.json                    format of the store
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

from ..core.paths import Address, store_root
from ..errors import CorruptArtifactError, StorageError
from ..files import atomic
from . import maintenance, shared_maintenance
from .checkpoint import Checkpoint
from .layout import DOWNLOAD, StoreLayout
from .maintenance import Problem, StoreEntry
from .manifest import NAME, Artifact, Manifest, check_file_names, examine, seal, unseal, write_files
from .shared import Remote, checked

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("privbench")
#: Attempts to replace a damaged artifact of the shared tier.
_ATTEMPTS = 3


class Store:
    """Artifacts below a folder, which is made at the first write.

    Any number of processes and threads may use one store. Kinds are names of stages, keys are lower-case hexadecimal
    SHA-256.

    Args:
        root: the folder, or the address of a store.
    """

    def __init__(self, root: Path | Address) -> None:
        #: Picklable, for `open_store` in another process.
        self.address = root if isinstance(root, Address) else Address(str(Path(root).expanduser().absolute()))
        self._layout = StoreLayout(Path(self.address.root))
        self._remote = Remote(self.address.remote) if self.address.remote else None
        self._agreed: set[tuple[str, str]] = set()
        self._publishes_late = True

    @property
    def root(self) -> Path:
        """Folder of the local tier."""
        return self._layout.root

    def find(self, kind: str, key: str, *, verify: bool = True) -> Artifact | None:
        """Find an artifact; `None` if there is none.

        An artifact that does not match its manifest is moved to the quarantine with a warning and counts as missing;
        if another process holds the lock of its key, that process moves it.

        A store at a URL is searched in the local tier first. An artifact that only the shared tier has is downloaded
        and verified; one that only the local tier has is published; if they differ, the shared one is used. After
        that, the shared tier is not queried for the key again.

        Args:
            kind: of the artifact.
            key: of the artifact.
            verify: compare the SHA-256 of every file now; otherwise only names, sizes and the manifest are checked
                now, and each file when it is read.

        Raises:
            StorageError: the store cannot be read, or is of a newer format.
        """
        local = self._find_local(kind, key, verify)
        if self._remote is None or (local is not None and (kind, key) in self._agreed):
            return local
        published = self._remote.manifest(kind, key)
        if local is None:
            return None if published is None else self._download(self._remote, kind, key, published)
        if published is not None and self._is_published(local, published):
            return local
        return self._publish_late(self._remote, local, published)

    def manifest(self, kind: str, key: str) -> Manifest | None:
        """Read the manifest of an artifact in either tier, without reading its files or changing anything."""
        with contextlib.suppress(CorruptArtifactError):
            found = self._read(kind, key, verify=False)
            if found is not None:
                return found.manifest
        published = None if self._remote is None else self._remote.manifest(kind, key)
        with contextlib.suppress(CorruptArtifactError):
            return None if published is None else checked(published, kind, key)
        return None

    def _find_local(self, kind: str, key: str, verify: bool) -> Artifact | None:
        with contextlib.suppress(CorruptArtifactError):
            return self._read(kind, key, verify)
        try:
            with self._layout.lock_if_free(kind, key) as free:
                return self._find_locked(kind, key, verify) if free else None
        except StorageError as cause:
            if not atomic.is_denied(cause):
                raise
            log.warning("%s %s is damaged, but cannot be moved: %s", kind, key[:12], cause)
            return None

    def _find_locked(self, kind: str, key: str, verify: bool) -> Artifact | None:
        """Find an artifact whose lock the caller holds; a damaged one is moved to the quarantine."""
        try:
            return self._read(kind, key, verify)
        except CorruptArtifactError as damage:
            moved = self._layout.quarantine(self._layout.folder(kind, key), kind, key)
            log.warning("%s %s is damaged (%s); moved to %s; it will be recomputed", kind, key[:12], damage, moved)
            return None

    def _read(self, kind: str, key: str, verify: bool) -> Artifact | None:
        folder = self._layout.folder(kind, key)
        if not self._layout.exists() or not os.path.lexists(folder):
            return None
        with atomic.storage_errors(folder, "read"):
            return Artifact(kind, key, folder, examine(folder, kind, key, contents=verify))

    def _is_published(self, local: Artifact, published: bytes) -> bool:
        """Tell whether the published manifest is that of the local artifact, and remember it if so."""
        with atomic.storage_errors(local.path, "read"), contextlib.suppress(FileNotFoundError):
            if atomic.read(local.path / NAME) == published:
                self._agreed.add((local.kind, local.key))
                return True
        return False

    def _download(self, remote: Remote, kind: str, key: str, published: bytes) -> Artifact | None:
        """Download a published artifact to the local tier; `None` if it is damaged."""
        pair = DOWNLOAD, f"{kind}_{key}"
        with self._layout.lock(*pair):
            with contextlib.suppress(CorruptArtifactError):
                if (found := self._read(kind, key, verify=True)) is not None:  # another process downloaded it first
                    self._is_published(found, published)
                    return found
            temporary = self._layout.temporary(*pair)
            try:
                remote.download(published, kind, key, temporary)
                self._put_in_place(temporary, kind, key)
            except CorruptArtifactError as damage:
                remote.quarantine(kind, key, published, damage)
                return None
            finally:
                _clear(temporary)
        found = self._find_local(kind, key, verify=False)
        if found is not None:
            self._is_published(found, published)
        return found

    def _put_in_place(self, temporary: Path, kind: str, key: str) -> None:
        """Rename a complete artifact into place; one that another process put there meanwhile is kept."""
        folder = self._layout.folder(kind, key)
        with atomic.storage_errors(folder):
            atomic.make_folder(folder.parent)
            try:
                temporary.rename(folder)
            except OSError:
                if not os.path.lexists(folder):
                    raise
            atomic.sync_folder(folder.parent)

    def _publish_late(self, remote: Remote, local: Artifact, published: bytes | None) -> Artifact:
        """Publish an artifact that the shared tier lacks, or use the shared one; a failure does not stop reading."""
        if not self._publishes_late:
            return local
        try:
            with self._layout.lock_if_free(local.kind, local.key) as free:
                return self._settle(remote, local, published) if free else local
        except CorruptArtifactError:  # not verified yet; reading the damaged file raises the error
            return local
        except StorageError as cause:
            self._publishes_late = False
            log.warning("%s %s, and maybe more, is only in %s: %s", local.kind, local.key[:12], self.root, cause)
            return local

    def _settle(self, remote: Remote, local: Artifact, published: bytes | None) -> Artifact:
        """Publish an artifact, whose lock the caller holds, or download what another machine published first."""
        kind, key = local.kind, local.key
        for _ in range(_ATTEMPTS):
            if published is None:
                published = remote.publish(kind, key, local.path)
            if self._is_published(local, published):
                return local
            temporary = self._layout.temporary(kind, key)
            try:
                remote.download(published, kind, key, temporary)
                self._layout.discard(local.path, kind, key)
                self._put_in_place(temporary, kind, key)
            except CorruptArtifactError as damage:
                remote.quarantine(kind, key, published, damage)
                published = remote.manifest(kind, key)
                continue
            finally:
                _clear(temporary)
            log.warning("another machine published %s %s first; its result is used", kind, key[:12])
            self._agreed.add((kind, key))
            return Artifact(kind, key, local.path, Manifest.decode(published))
        raise StorageError(
            f"{kind} {key[:12]} of {remote.url} is damaged and cannot be replaced; ask someone who can write there "
            f"to run privbench store check --repair"
        )

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
        """Store an artifact; if a valid one exists, it is kept and returned.

        Args:
            kind: of the artifact.
            key: of the artifact.
            tensors: named tensors by group; each group becomes `{group}.safetensors`.
            info: JSON values, which are not part of the digest.
            inputs: keys of the artifacts it was made from, by role.
            files: other files by name.

        Raises:
            InvalidConfigurationError: a name, tensor or value cannot be stored.
            StorageError: the local tier cannot be written, and nothing is left of the artifact; or the shared tier
                cannot be written, and `find` publishes the artifact from the local tier later.
        """
        contents = dict(files or {})
        check_file_names(contents, tensors)
        facts = unseal(seal(dict(info)))
        with self._layout.lock(kind, key):
            found = self.find(kind, key)
            if found is not None:
                return found
            folder, temporary = self._layout.folder(kind, key), self._layout.temporary(kind, key)
            manifest = Manifest(kind=kind, key=key, created=_now(), inputs=dict(inputs or {}), info=facts, files={})
            with atomic.storage_errors(folder), atomic.replaced_folder(folder, temporary):
                manifest = write_files(temporary, manifest, tensors, contents)
            artifact = Artifact(kind, key, folder, manifest)
            return artifact if self._remote is None else self._settle(self._remote, artifact, None)

    def exists(self, kind: str, key: str) -> bool:
        """Tell whether the local tier has something under the key, valid or damaged."""
        return os.path.lexists(self._layout.folder(kind, key))

    def discard(self, kind: str, key: str) -> None:
        """Remove an artifact so that it is recomputed; one that another machine published meanwhile is kept."""
        folder = self._layout.folder(kind, key)
        with self._layout.lock(kind, key):
            if self._remote is not None:
                with atomic.storage_errors(folder, "read"):
                    expected = atomic.read(folder / NAME) if (folder / NAME).is_file() else None
                self._remote.withdraw(kind, key, expected)
            self._agreed.discard((kind, key))
            self._layout.discard(folder, kind, key)

    def lock(self, kind: str, key: str) -> AbstractContextManager[None]:
        """Hold the lock of a key; others wait for it and log once who holds it. A killed process releases its locks.

        A thread that holds the lock may take it again, as `write` does.

        Raises:
            StorageError: one of the tiers cannot be written, so a result could not be stored.
        """
        if self._remote is not None and not self._layout.is_held(kind, key):
            self._remote.prepare()
        return self._layout.lock(kind, key)

    def checkpoint(self, kind: str, key: str) -> Checkpoint:
        """Checkpoints of an unfinished stage, to be used while the caller holds its lock."""
        return Checkpoint(self._layout, kind, key)

    def entries(self) -> Iterator[StoreEntry]:
        """Yield every artifact of the local tier, by kind and key, damaged ones included."""
        return maintenance.entries(self._layout)

    def shared_entries(self) -> list[StoreEntry]:
        """List every artifact of the shared tier, if there is one, by kind and key, damaged ones included."""
        return [] if self._remote is None else shared_maintenance.entries(self._remote)

    def check(self, *, repair: bool = False) -> list[Problem]:
        """Find damaged, unknown and leftover files in both tiers.

        Args:
            repair: move damaged and unknown files to the quarantine, and remove leftovers of dead processes.
        """
        shared = [] if self._remote is None else shared_maintenance.check(self._remote, repair)
        return [*maintenance.check(self._layout, repair), *shared]

    def gc(
        self,
        keep: Callable[[StoreEntry], bool] | Collection[str] | None,
        *,
        older_than_days: float | None = None,
        dry_run: bool = False,
        shared: bool = False,
    ) -> list[StoreEntry]:
        """Remove what is not needed, except under keys that a process has locked.

        The local tier loses temporary files of dead processes, the quarantine, checkpoints of finished artifacts, and
        artifacts that are not kept. `older_than_days` limits the artifacts to older ones, and adds older checkpoints
        of unfinished artifacts that are not kept. The shared tier loses temporary files, the quarantine, and blobs
        that no manifest lists, if they are older than a day.

        Args:
            keep: keys of artifacts to keep, or a predicate; `None` keeps all artifacts.
            older_than_days: keep younger artifacts.
            dry_run: remove nothing.
            shared: also remove artifacts that are not kept from the shared tier.

        Returns:
            Entries that were removed, or would be.
        """
        removed = maintenance.collect(self._layout, keep, older_than_days, dry_run)
        if self._remote is not None:
            self._agreed.clear()
            removed += shared_maintenance.collect(self._remote, keep, older_than_days, dry_run, artifacts=shared)
        return removed


def open_store(address: str | Path | Address | None = None) -> Store:
    """Open the store at a folder or URL; by default at `PRIVBENCH_STORE`, else in the user's cache folder.

    Raises:
        InvalidConfigurationError: the URL cannot be that of a store.
    """
    return Store(store_root(address))


def _clear(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        atomic.remove(temporary)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
