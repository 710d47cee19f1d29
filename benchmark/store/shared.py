"""The tier of a store that machines share: blobs named by their SHA-256, and manifests that make artifacts of them.

URL/format.json                the format of the tier
URL/blobs/ab/SHA256            the bytes of a file, whoever needs it
URL/KIND/KEY[:2]/KEY.json      the manifest of an artifact, written last and once
URL/tmp  URL/quarantine

Nobody locks anything. Whoever publishes writes blobs that nobody can confuse, then creates the manifest; of several
who make the same key one succeeds, and the others take over what it published.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CorruptArtifactError, InvalidConfigurationError, StorageError
from ..files import atomic
from ..files.untrusted import shown
from .layout import BLOBS, FORMAT_FILE, QUARANTINE, TEMPORARY, place
from .manifest import FORMAT, MAX_BYTES, NAME, TENSORS, FileFacts, Manifest, check_file_names
from .shared_files import RemoteFiles

log = logging.getLogger("privbench")
LAYOUT = "blobs"
MAX_FILES = 1000
#: Bytes of a manifest with its checksum.
_LIMIT = MAX_BYTES + 100


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
        """The bytes of a published manifest, unchecked; `None` where there is none.

        Raises:
            StorageError: it cannot be read, or the tier is of a newer format.
        """
        name = manifest_name(kind, key)
        if not self.exists():
            return None
        try:
            return self.files.read(name, _LIMIT)
        except CorruptArtifactError:  # a link, a folder or a device
            return b""

    def exists(self) -> bool:
        """Whether there is a tier, of a format that this version reads.

        Raises:
            StorageError: it is something else, or of a newer format.
        """
        if not self._is_known:
            found = self.files.read(FORMAT_FILE, 4096)
            if found is None:
                return False
            self._check_format(found)
            self._is_known = True
        return True

    def prepare(self) -> None:
        """Make sure that there is a tier and that it can be written, before anything is computed for it.

        Raises:
            StorageError: it cannot, or there is something else.
        """
        if self._is_writable:
            return
        if not self.exists():
            # Another machine may have begun to make the tier, or be done with it, since the look for the format.
            if self.files.top() - {TEMPORARY} and not self.exists():
                raise StorageError(
                    f"{self.url} is no store of privbench: it has no {FORMAT_FILE}; choose an empty or new place with "
                    f"--store or PRIVBENCH_STORE"
                )
            self.files.create(FORMAT_FILE, _format_text().encode())
            self.exists()
        self.now()
        self._is_writable = True

    def now(self) -> datetime | None:
        """The time by the clock of the tier, which must be one to write to; `None` where no times are kept."""
        trial = f"{TEMPORARY}/{secrets.token_hex(16)}"
        self.files.create(trial, b"")
        try:
            return self.files.modified(trial)
        finally:
            self.files.remove(trial)

    def _check_format(self, found: bytes) -> None:
        try:
            facts = json.loads(found)
            number, layout = facts["format"], facts.get("layout")
            if type(number) is not int or number < 1:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise StorageError(
                f"{self.url}/{FORMAT_FILE} is damaged; write {_format_text()} into it and run privbench store check"
            ) from None
        if number > FORMAT:
            raise StorageError(
                f"the store {self.url} has format {number} and this privbench reads up to {FORMAT}; update privbench "
                f"or choose another store with --store or PRIVBENCH_STORE"
            )
        if layout != LAYOUT:
            raise StorageError(
                f"{self.url} is a store for one machine; name it by its path, or choose another place for a shared one"
            )

    def publish(self, kind: str, key: str, folder: Path) -> bytes:
        """Publish the artifact in a folder, unless another was first; returns the manifest that stands.

        Raises:
            CorruptArtifactError: a file of the folder does not match its manifest.
            StorageError: the tier cannot be written.
        """
        self.prepare()
        data = atomic.read(folder / NAME)
        for name, facts in checked(data, kind, key).files.items():
            if atomic.sha256(folder / name) != facts.sha256:
                raise CorruptArtifactError(f"{name} does not match the manifest")
            self.files.put(blob_name(facts.sha256), folder / name)
        self.files.create(manifest_name(kind, key), data)
        published = self.manifest(kind, key)
        return data if published is None else published

    def download(self, data: bytes, kind: str, key: str, folder: Path) -> None:
        """Make a new folder hold a published artifact, every byte of it verified.

        Args:
            data: the manifest.
            kind: what the manifest must say.
            key: what the manifest must say.
            folder: does not exist yet; what is in it after an error is the caller's to remove.

        Raises:
            CorruptArtifactError: the manifest or a blob is not what it should be.
            StorageError: the tier cannot be read, or the folder not be written.
        """
        files = checked(data, kind, key).files
        with atomic.storage_errors(folder):
            folder.mkdir()
            for name, facts in files.items():
                atomic.write_chunks(folder / name, self._blob(name, facts))
            atomic.write_new(folder / NAME, data)
            atomic.sync_folder(folder)

    def _blob(self, name: str, facts: FileFacts) -> Iterator[bytes]:
        """The bytes of a blob; what is not as the manifest says is an error, after the last byte at the latest."""
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
        """What is wrong with a blob, one phrase; `None` if nothing is."""
        try:
            for _ in self._blob(facts.sha256[:12], facts):
                pass
        except CorruptArtifactError as damage:
            return str(damage)
        return None

    def quarantine(self, kind: str, key: str, data: bytes, damage: Exception) -> None:
        """Move a damaged manifest out of the way, unless it was replaced meanwhile."""
        if self.manifest(kind, key) != data:
            return
        target = f"{QUARANTINE}/{kind}-{key}-{datetime.now(UTC):%Y%m%dT%H%M%S}{secrets.token_hex(3)}.json"
        try:
            self.files.move(manifest_name(kind, key), target)
            done = f"moved to {target}, to be made again"
        except StorageError as cause:
            done = f"to be made again, but {cause}"
        log.warning("%s %s of %s is damaged (%s); %s", kind, key[:12], self.url, damage, done)

    def withdraw(self, kind: str, key: str, data: bytes | None) -> None:
        """Remove a manifest, unless it is another than expected; `None` expects any."""
        found = self.manifest(kind, key)
        if found is not None and data in (None, found):
            self.files.remove(manifest_name(kind, key))


def manifest_name(kind: str, key: str) -> str:
    """Where the manifest of an artifact is.

    Raises:
        InvalidConfigurationError: kind or key are no names.
    """
    return place(kind, key).as_posix() + ".json"


def blob_name(sha256: str) -> str:
    """Where the bytes with a SHA-256 are."""
    return f"{BLOBS}/{sha256[:2]}/{sha256}"


def checked(data: bytes, kind: str, key: str) -> Manifest:
    """The manifest in bytes that anybody may have written.

    Raises:
        CorruptArtifactError: it is damaged, of another key, or names files that no artifact has.
    """
    if len(data) >= _LIMIT:
        raise CorruptArtifactError(f"{NAME} is too large")
    manifest = Manifest.decode(data)
    if (manifest.format, manifest.kind, manifest.key) != (FORMAT, kind, key):
        other = f"{manifest.kind} {manifest.key[:12]}, format {manifest.format}"
        raise CorruptArtifactError(f"{NAME} is of {shown(other)}")
    if len(manifest.files) > MAX_FILES:
        raise CorruptArtifactError(f"{NAME} names more than {MAX_FILES} files")
    try:
        check_file_names(
            [name for name in manifest.files if not name.endswith(TENSORS)],
            [name.removesuffix(TENSORS) for name in manifest.files if name.endswith(TENSORS)],
        )
    except InvalidConfigurationError:
        raise CorruptArtifactError(f"{NAME} names files that no artifact has") from None
    return manifest


def _format_text() -> str:
    return json.dumps({"format": FORMAT, "layout": LAYOUT})
