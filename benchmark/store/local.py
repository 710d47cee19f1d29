"""Artifacts of the local tier: found, verified, put in place as a whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CorruptArtifactError, StorageError
from ..files import atomic
from .layout import StoreLayout
from .manifest import MAX_BYTES, NAME, Artifact, Manifest, examine, write_files

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("privbench")


class LocalTier:
    """Artifacts in the folder of a store.

    Args:
        layout: of the folder.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    def exists(self, kind: str, key: str) -> bool:
        """Tell whether there is something under the key, valid or damaged."""
        folder = self._layout.folder(kind, key)
        with atomic.storage_errors(folder, "read"):
            return self._layout.tree.exists(folder)

    def read(self, kind: str, key: str, *, verify: bool) -> Artifact | None:
        """Read and check an artifact; `None` if there is none.

        Raises:
            CorruptArtifactError: it does not match its manifest.
            StorageError: it cannot be read.
        """
        folder = self._layout.folder(kind, key)
        if not self._layout.exists() or not self.exists(kind, key):
            return None
        return Artifact(kind, key, folder, examine(folder, kind, key, contents=verify))

    def find(self, kind: str, key: str, *, verify: bool) -> Artifact | None:
        """Find an artifact; a damaged one counts as missing and is moved to the quarantine unless its key is locked."""
        with contextlib.suppress(CorruptArtifactError):
            return self.read(kind, key, verify=verify)
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
            return self.read(kind, key, verify=verify)
        except CorruptArtifactError as damage:
            moved = self._layout.quarantine(self._layout.folder(kind, key), kind, key)
            log.warning("%s %s is damaged (%s); moved to %s; it will be recomputed", kind, key[:12], damage, moved)
            return None

    def manifest(self, folder: Path) -> bytes | None:
        """Return the content of the manifest of an artifact; `None` if there is none that could be valid."""
        with atomic.storage_errors(folder, "read"):
            try:
                return self._layout.tree.read(folder / NAME, MAX_BYTES + 100)
            except (FileNotFoundError, NotADirectoryError, CorruptArtifactError):
                return None

    def write(
        self, manifest: Manifest, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes]
    ) -> Artifact:
        """Write an artifact whose lock the caller holds, and read it back; after a failure nothing is left of it.

        Args:
            manifest: without files.
            tensors: named tensors by group.
            files: other files by name.

        Raises:
            StorageError: it cannot be written.
        """
        kind, key, tree = manifest.kind, manifest.key, self._layout.tree
        temporary = self._layout.temporary(kind, key)
        try:
            with atomic.storage_errors(self._layout.folder(kind, key)):
                tree.new_folder(temporary)
                write_files(tree, temporary, manifest, tensors, files)
            self.put_in_place(temporary, kind, key)
        finally:
            self.clear(temporary)
        artifact = self.read(kind, key, verify=False)
        assert artifact is not None
        return artifact

    def put_in_place(self, temporary: Path, kind: str, key: str) -> None:
        """Rename a complete artifact into place; one that another process put there meanwhile is kept."""
        folder, tree = self._layout.folder(kind, key), self._layout.tree
        with atomic.storage_errors(folder):
            tree.make_folder(folder.parent)
            try:
                tree.rename(temporary, folder)
            except OSError:
                if not tree.exists(folder):
                    raise
            tree.sync_folder(folder.parent)

    def clear(self, temporary: Path) -> None:
        """Remove a temporary folder, if it is still there."""
        with contextlib.suppress(OSError):
            self._layout.tree.remove(temporary)
