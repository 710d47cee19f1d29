"""Shared tier of a store: blobs named by their SHA-256, and manifests that make artifacts of them.

URL/format.json                format of the tier
URL/blobs/ab/SHA256            content of a file, for every artifact that contains it
URL/KIND/KEY[:2]/KEY.json      manifest of an artifact, written last and once
URL/tmp  URL/quarantine

There are no locks. A machine publishes by writing blobs, whose names are their hashes, and then creating the manifest.
If several machines publish the same key, one succeeds, and the others download what it published.
"""

import hashlib
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CorruptArtifactError, InvalidConfigurationError, StorageError
from ..files import atomic
from ..files.tree import Tree
from .layout import BLOBS, FORMAT_FILE, QUARANTINE, TEMPORARY, check_format, format_text, not_a_store, relative_path
from .manifest import MAX_BYTES, NAME, TENSORS, FileFacts, Manifest, check_file_names, tree_of
from .shared_files import RemoteFiles

log = logging.getLogger("privbench")
MAX_FILES = 1000
#: Bytes of a manifest, checksum included.
LIMIT = MAX_BYTES + 100


class Remote:
    """Published artifacts below a URL.

    Args:
        url: of the tier.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files = RemoteFiles(url)
        self._is_known = False
        self._is_writable = False

    def manifest(self, kind: str, key: str) -> bytes | None:
        """Read a published manifest without checking it; `None` if there is none.

        Raises:
            StorageError: it cannot be read, or the tier is of a newer format.
        """
        name = manifest_name(kind, key)
        if not self.exists():
            return None
        try:
            return self.files.read(name, LIMIT)
        except CorruptArtifactError:  # a link, a folder or a device
            return b""

    def exists(self) -> bool:
        """Tell whether there is a shared tier, of a format that this version reads.

        Raises:
            StorageError: it is something else, or of a newer format.
        """
        if not self._is_known:
            found = self.files.read(FORMAT_FILE, 4096)
            if found is None:
                return False
            check_format(found, self.url, shared=True)
            self._is_known = True
        return True

    def prepare(self) -> None:
        """Make the tier if it does not exist, and check that it is writable, before anything is computed for it.

        Raises:
            StorageError: it is not writable, or something else is there.
        """
        if self._is_writable:
            return
        if not self.exists():
            # Another machine may have made the tier, or started to, since `exists` looked for the format.
            if self.files.top() - {TEMPORARY} and not self.exists():
                raise not_a_store(self.url)
            self.files.create(FORMAT_FILE, format_text(shared=True).encode())
            self.exists()
        self.now()
        self._is_writable = True

    def now(self) -> datetime | None:
        """Read the clock of the tier by writing a file; `None` if the tier keeps no times."""
        trial = f"{TEMPORARY}/{secrets.token_hex(16)}"
        self.files.create(trial, b"")
        try:
            return self.files.modified(trial)
        finally:
            self.files.remove(trial)

    def publish(self, kind: str, key: str, folder: Path) -> bytes:
        """Publish the artifact in a folder unless another machine did so first; returns the published manifest.

        Raises:
            CorruptArtifactError: a file of the folder does not match its manifest.
            StorageError: the tier cannot be written.
        """
        self.prepare()
        tree = tree_of(folder)
        data = tree.read(folder / NAME, LIMIT)
        for name, facts in checked(data, kind, key).files.items():
            if tree.sha256(folder / name) != facts.sha256:
                raise CorruptArtifactError(f"{name} does not match the manifest")
            self.files.put(blob_name(facts.sha256), folder / name)
        self.files.create(manifest_name(kind, key), data)
        published = self.manifest(kind, key)
        return data if published is None else published

    def download(self, data: bytes, kind: str, key: str, tree: Tree, folder: Path) -> None:
        """Download a published artifact to a new folder and verify every byte.

        Args:
            data: the manifest.
            kind: that the manifest must have.
            key: that the manifest must have.
            tree: the local tier.
            folder: below it; does not exist yet; after an error the caller removes it.

        Raises:
            CorruptArtifactError: the manifest or a blob is damaged.
            StorageError: the tier cannot be read, or the folder cannot be written.
        """
        files = checked(data, kind, key).files
        with atomic.storage_errors(folder):
            tree.new_folder(folder)
            for name, facts in files.items():
                tree.write_new(folder / name, self._blob(name, facts))
            tree.write_new(folder / NAME, [data])
            tree.sync_folder(folder)

    def _blob(self, name: str, facts: FileFacts) -> Iterator[bytes]:
        """Yield the bytes of a blob; a mismatch with the manifest raises an error after the last byte at the latest."""
        found, size = hashlib.sha256(), 0
        try:
            for chunk in self.files.chunks(blob_name(facts.sha256), facts.bytes):
                size += len(chunk)
                found.update(chunk)
                yield chunk
        except FileNotFoundError:
            raise CorruptArtifactError(f"the blob of {name} is missing") from None
        if size != facts.bytes or found.hexdigest() != facts.sha256:
            raise CorruptArtifactError(f"the blob of {name} does not match the manifest")

    def blob_damage(self, facts: FileFacts) -> str | None:
        """Describe the damage of a blob in one phrase; `None` if it is intact."""
        try:
            for _ in self._blob(facts.sha256[:12], facts):
                pass
        except CorruptArtifactError as damage:
            return str(damage)
        return None

    def quarantine(self, kind: str, key: str, data: bytes, damage: Exception) -> None:
        """Move a damaged manifest to the quarantine, unless it has been replaced."""
        if self.manifest(kind, key) != data:
            return
        target = f"{QUARANTINE}/{kind}-{key}-{datetime.now(UTC):%Y%m%dT%H%M%S}{secrets.token_hex(3)}.json"
        try:
            self.files.move(manifest_name(kind, key), target)
            result = f"moved to {target}; it will be recomputed"
        except StorageError as cause:
            result = f"it will be recomputed, but {cause}"
        log.warning("%s %s of %s is damaged (%s); %s", kind, key[:12], self.url, damage, result)

    def withdraw(self, kind: str, key: str, data: bytes | None) -> None:
        """Remove a manifest if its bytes are `data`, or any manifest if `data` is `None`."""
        found = self.manifest(kind, key)
        if found is not None and data in (None, found):
            self.files.remove(manifest_name(kind, key))


def manifest_name(kind: str, key: str) -> str:
    """Name of the file that holds the manifest of an artifact.

    Raises:
        InvalidConfigurationError: `kind` or `key` is not a valid name.
    """
    return relative_path(kind, key).as_posix() + ".json"


def blob_name(sha256: str) -> str:
    """Name of the file that holds the bytes with a SHA-256."""
    return f"{BLOBS}/{sha256[:2]}/{sha256}"


def checked(data: bytes, kind: str, key: str) -> Manifest:
    """Validate a manifest that anybody may have written.

    Raises:
        CorruptArtifactError: it is damaged, belongs to another key, or lists files that no artifact contains.
    """
    if len(data) >= LIMIT:
        raise CorruptArtifactError(f"{NAME} is too large")
    try:
        manifest = Manifest.decode(data, kind, key)
    except CorruptArtifactError as cause:
        raise CorruptArtifactError(f"{NAME} is damaged: {cause}") from cause
    if len(manifest.files) > MAX_FILES:
        raise CorruptArtifactError(f"{NAME} lists more than {MAX_FILES} files")
    try:
        check_file_names(
            [name for name in manifest.files if not name.endswith(TENSORS)],
            [name.removesuffix(TENSORS) for name in manifest.files if name.endswith(TENSORS)],
        )
    except InvalidConfigurationError:
        raise CorruptArtifactError(f"{NAME} lists files that no artifact contains") from None
    return manifest
