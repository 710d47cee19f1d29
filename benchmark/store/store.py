"""Content-addressed store of artifacts: written once and whole, found by key, never trusted unchecked.

A store at a URL has a second tier, which `remote` describes; the folder is then its local one.

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

from ..core.paths import Address, store_root
from ..errors import CorruptArtifactError, StorageError
from ..files import atomic
from ..files.tensors import pack
from . import maintenance, shared_maintenance
from .checkpoint import Checkpoint
from .layout import DOWNLOAD, StoreLayout
from .maintenance import Problem, StoreEntry
from .manifest import NAME, TENSORS, Artifact, FileFacts, Manifest, check_file_names, examine, seal, unseal
from .shared import Remote, checked

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("privbench")
#: How often a damaged artifact of the shared tier is moved out of the way before that is given up.
_ROUNDS = 3


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
        self._layout = StoreLayout(Path(self.address.root))
        self._remote = Remote(self.address.remote) if self.address.remote else None
        self._agreed: set[tuple[str, str]] = set()
        self._publishes_late = True

    @property
    def root(self) -> Path:
        """The folder."""
        return self._layout.root

    def find(self, kind: str, key: str, *, verify: bool = True) -> Artifact | None:
        """The artifact, or `None` where there is none.

        One that does not match its manifest is moved to the quarantine with a warning, unless another process works
        on the key and will do so itself; it counts as missing.

        Of a store at a URL the local tier is looked at first. What is only in the shared tier is downloaded and
        verified; what is only in the local one is published; where they differ, the shared one holds. Once that is
        settled, the shared tier is not asked for the key again.

        Args:
            kind: of the artifact.
            key: of the artifact.
            verify: compare the SHA-256 of every file now; otherwise only names, sizes and the manifest itself are
                checked, and each file when it is read.

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
        """What is said of an artifact in either tier, without looking at its files, and without changing anything.

        Raises:
            StorageError: the store cannot be read, or is of a newer format.
        """
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
                return self._second_look(kind, key, verify) if free else None
        except StorageError as cause:
            if not atomic.is_denied(cause):
                raise
            log.warning("%s %s is damaged, and stays where it is: %s", kind, key[:12], cause)
            return None

    def _second_look(self, kind: str, key: str, verify: bool) -> Artifact | None:
        """What is there now that nobody else can change it."""
        try:
            return self._read(kind, key, verify)
        except CorruptArtifactError as damage:
            moved = self._layout.quarantine(self._layout.folder(kind, key), kind, key)
            log.warning("%s %s is damaged (%s); moved to %s, to be made again", kind, key[:12], damage, moved)
            return None

    def _read(self, kind: str, key: str, verify: bool) -> Artifact | None:
        folder = self._layout.folder(kind, key)
        if not self._layout.exists() or not os.path.lexists(folder):
            return None
        with atomic.storage_errors(folder, "read"):
            return Artifact(kind, key, folder, examine(folder, kind, key, contents=verify))

    def _is_published(self, local: Artifact, published: bytes) -> bool:
        """Whether what is published is the local artifact; then it need not be asked for again."""
        with atomic.storage_errors(local.path, "read"), contextlib.suppress(FileNotFoundError):
            if atomic.read(local.path / NAME) == published:
                self._agreed.add((local.kind, local.key))
                return True
        return False

    def _download(self, remote: Remote, kind: str, key: str, published: bytes) -> Artifact | None:
        """What is published, from now on in the local tier, too; `None` if it is damaged."""
        pair = DOWNLOAD, f"{kind}_{key}"
        with self._layout.lock(*pair):
            with contextlib.suppress(CorruptArtifactError):
                if (found := self._read(kind, key, verify=True)) is not None:  # another process was quicker
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
        """Rename a whole artifact into place; what another process put there meanwhile stays."""
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
        """Settle on one artifact where the shared tier has none, or another one; reading must not fail for that."""
        if not self._publishes_late:
            return local
        try:
            with self._layout.lock_if_free(local.kind, local.key) as free:
                return self._settle(remote, local, published) if free else local
        except CorruptArtifactError:  # not verified yet; whoever reads the file is told
            return local
        except StorageError as cause:
            self._publishes_late = False
            log.warning("%s %s, and maybe more, is in %s alone: %s", local.kind, local.key[:12], self.root, cause)
            return local

    def _settle(self, remote: Remote, local: Artifact, published: bytes | None) -> Artifact:
        """Publish an artifact, whose lock the caller holds, or take over what another machine published first."""
        kind, key = local.kind, local.key
        for _ in range(_ROUNDS):
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
            f"{kind} {key[:12]} of {remote.url} is damaged and cannot be replaced; ask whoever may write there to run "
            f"privbench store check --repair"
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
            StorageError: no permission, no space, not a folder, and nothing of it is left; or the shared tier cannot
                be written, and the artifact is whole in the local one, from where `find` publishes it later.
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
            with atomic.storage_errors(folder):
                try:
                    temporary.mkdir()
                    manifest = _fill(temporary, manifest, tensors, contents)
                    atomic.make_folder(folder.parent)
                    temporary.rename(folder)
                    atomic.sync_folder(folder.parent)
                except BaseException:
                    _clear(temporary)
                    raise
            artifact = Artifact(kind, key, folder, manifest)
            return artifact if self._remote is None else self._settle(self._remote, artifact, None)

    def exists(self, kind: str, key: str) -> bool:
        """Whether something is stored under the key in the local tier, sound or not."""
        return os.path.lexists(self._layout.folder(kind, key))

    def discard(self, kind: str, key: str) -> None:
        """Remove an artifact, so that it is made again; what another machine published meanwhile stays."""
        folder = self._layout.folder(kind, key)
        with self._layout.lock(kind, key):
            if self._remote is not None:
                with atomic.storage_errors(folder, "read"):
                    expected = atomic.read(folder / NAME) if (folder / NAME).is_file() else None
                self._remote.withdraw(kind, key, expected)
            self._agreed.discard((kind, key))
            self._layout.discard(folder, kind, key)

    def lock(self, kind: str, key: str) -> AbstractContextManager[None]:
        """Hold a key: whoever else locks it waits, and is told once for whom. A killed process holds nothing.

        Within one thread it may be taken again, as `write` does.

        Raises:
            StorageError: nothing could be written under the key, in either tier, so that computing would be in vain.
        """
        if self._remote is not None and not self._layout.is_held(kind, key):
            self._remote.prepare()
        return self._layout.lock(kind, key)

    def checkpoint(self, kind: str, key: str) -> Checkpoint:
        """Checkpoints of an unfinished stage; the caller holds its lock while it uses them."""
        return Checkpoint(self._layout, kind, key)

    def entries(self) -> Iterator[StoreEntry]:
        """Every artifact of the local tier, by kind and key, damaged ones included."""
        return maintenance.entries(self._layout)

    def shared_entries(self) -> list[StoreEntry]:
        """Every artifact of the shared tier, if there is one, by kind and key, damaged ones included."""
        return [] if self._remote is None else shared_maintenance.entries(self._remote)

    def check(self, *, repair: bool = False) -> list[Problem]:
        """Compare everything in the store, in both tiers, with what it should be.

        Args:
            repair: move what is damaged or unknown to the quarantine, and remove what dead processes left.
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
        """Remove what nobody needs, but nothing that a process is working on.

        Removed are temporary files of dead processes, the quarantine, checkpoints of finished artifacts, and
        artifacts that are not kept. With `older_than_days` only older artifacts are removed, and older checkpoints of
        unfinished ones that are not kept, too. Of a shared tier goes only what is older than a day: temporary files,
        the quarantine, and blobs that no manifest names.

        Args:
            keep: keys of artifacts to keep, or what says so of each; `None` keeps all artifacts.
            older_than_days: spare younger artifacts.
            dry_run: remove nothing.
            shared: remove artifacts that are not kept from the shared tier, too.

        Returns:
            What was removed, or would be.
        """
        removed = maintenance.collect(self._layout, keep, older_than_days, dry_run)
        if self._remote is not None:
            self._agreed.clear()
            removed += shared_maintenance.collect(self._remote, keep, older_than_days, dry_run, artifacts=shared)
        return removed


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
        name: FileFacts(bytes=len(data), sha256=atomic.write_new(folder / name, data)) for name, data in files.items()
    }
    for group, members in tensors.items():
        data = pack(members)
        name = group + TENSORS
        facts[name] = FileFacts(bytes=len(data), sha256=atomic.write_new(folder / name, data))
    sealed = manifest.model_copy(update={"files": facts}).encode()
    atomic.write_new(folder / NAME, sealed)
    atomic.sync_folder(folder)
    return Manifest.decode(sealed)


def _clear(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        atomic.remove(temporary)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
