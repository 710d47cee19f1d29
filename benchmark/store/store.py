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
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.paths import Address, store_root
from ..errors import CorruptArtifactError, StorageError
from . import leases, maintenance, shared_maintenance
from .checkpoint import Checkpoint
from .layout import DOWNLOAD, StoreLayout
from .local import LocalTier
from .maintenance import Problem, StoreEntry
from .manifest import Artifact, Manifest, check_file_names, seal, unseal
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
        self._local = LocalTier(self._layout)
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
        local = self._local.find(kind, key, verify=verify)
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
            found = self._local.read(kind, key, verify=False)
            if found is not None:
                return found.manifest
        published = None if self._remote is None else self._remote.manifest(kind, key)
        with contextlib.suppress(CorruptArtifactError):
            return None if published is None else checked(published, kind, key)
        return None

    def _is_published(self, local: Artifact, published: bytes) -> bool:
        """Tell whether the published manifest is that of the local artifact, and remember it if so."""
        if self._local.manifest(local.path) != published:
            return False
        self._agreed.add((local.kind, local.key))
        return True

    def _download(self, remote: Remote, kind: str, key: str, published: bytes) -> Artifact | None:
        """Download a published artifact to the local tier; `None` if it is damaged."""
        pair = DOWNLOAD, f"{kind}_{key}"
        with self._layout.lock(*pair):
            with contextlib.suppress(CorruptArtifactError):
                if (found := self._local.read(kind, key, verify=True)) is not None:  # another process was faster
                    self._is_published(found, published)
                    return found
            temporary = self._layout.temporary(*pair)
            try:
                remote.download(published, kind, key, self._layout.tree, temporary)
                self._local.put_in_place(temporary, kind, key)
            except CorruptArtifactError as damage:
                remote.quarantine(kind, key, published, damage)
                return None
            finally:
                self._local.clear(temporary)
        found = self._local.find(kind, key, verify=False)
        if found is not None:
            self._is_published(found, published)
        return found

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
                remote.download(published, kind, key, self._layout.tree, temporary)
                self._layout.discard(local.path, kind, key)
                self._local.put_in_place(temporary, kind, key)
            except CorruptArtifactError as damage:
                remote.quarantine(kind, key, published, damage)
                published = remote.manifest(kind, key)
                continue
            finally:
                self._local.clear(temporary)
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
            manifest = Manifest(kind=kind, key=key, created=_now(), inputs=dict(inputs or {}), info=facts, files={})
            artifact = self._local.write(manifest, tensors, contents)
            return artifact if self._remote is None else self._settle(self._remote, artifact, None)

    def exists(self, kind: str, key: str) -> bool:
        """Tell whether the local tier has something under the key, valid or damaged."""
        return self._local.exists(kind, key)

    def discard(self, kind: str, key: str) -> None:
        """Remove an artifact so that it is recomputed; one that another machine published meanwhile is kept."""
        folder = self._layout.folder(kind, key)
        with self._layout.lock(kind, key):
            if self._remote is not None:
                expected = self._local.manifest(folder)
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

    def in_use(self, *, dry_run: bool = False) -> AbstractContextManager[set[str]]:
        """Let no run start in the local tier while the block runs; yields the keys that live runs use.

        To keep all that records reference, read the records in this block, and call `gc` there: a run that is no
        longer live has written them.
        """
        return leases.in_use(self._layout, dry_run=dry_run)

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

    @contextlib.contextmanager
    def lease(self, keys: Collection[str], *, shared: bool = True) -> Iterator[Callable[[], None]]:
        """Keep artifacts from `gc` while the block runs; a killed process keeps nothing.

        In the shared tier they are kept for some days from the last call of the yielded function, which is to be
        called now and then.

        Args:
            keys: of the artifacts, whether or not they exist yet.
            shared: keep them in the shared tier, too.

        Raises:
            StorageError: a tier cannot be read, or cannot be written for another reason than missing permissions.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(leases.local_lease(self._layout, keys))
            if self._remote is None or not shared:
                yield lambda: None
            else:
                yield held.enter_context(leases.shared_lease(self._remote, keys))

    def gc(
        self,
        keep: Callable[[StoreEntry], bool] | Collection[str] | None,
        *,
        older_than_days: float | None = None,
        dry_run: bool = False,
        shared: bool = False,
    ) -> list[StoreEntry]:
        """Remove what is not needed, except under keys that a process has locked or leased.

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
