"""Folders, locks and format of a store.

One lock for each key protects all that is written for the key: the artifact, its checkpoints, and the temporary files
of both. The holder may therefore remove any temporary file of the key, since its writer must be dead.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CorruptArtifactError, InvalidConfigurationError, StorageError
from ..files import atomic, locks
from ..files.documents import decode
from ..files.tree import Tree
from ..files.untrusted import shown
from .manifest import FORMAT

log = logging.getLogger("privbench")
FORMAT_FILE = "format.json"
LOCKS, TEMPORARY, QUARANTINE, CHECKPOINTS = "locks", "tmp", "quarantine", "checkpoints"
RESERVED = (LOCKS, TEMPORARY, QUARANTINE, CHECKPOINTS)
#: Folder of blobs in the shared tier, and the name of that tier's layout in its format file.
BLOBS = "blobs"
#: Kind of the locks of downloads, so that a download does not wait for a process that computes the same artifact.
DOWNLOAD = "download"
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KEY = re.compile(r"[0-9a-z_]{3,128}")
_POLL_SECONDS = 0.1
#: Bytes of a format file, and of the file that names the holder of a lock.
_MAX_FORMAT = 4096


def is_kind(name: str) -> bool:
    """Tell whether a folder of this name in a store may hold artifacts."""
    return bool(_KIND.fullmatch(name)) and name not in (*RESERVED, BLOBS)


def is_key(name: str) -> bool:
    """Tell whether `name` may be a key."""
    return bool(_KEY.fullmatch(name))


def relative_path(kind: str, key: str) -> Path:
    """Path of an artifact in its store.

    Raises:
        InvalidConfigurationError: `kind` or `key` is not a valid name.
    """
    if not is_kind(kind) or not is_key(key):
        raise InvalidConfigurationError(
            f"expected kind and key to consist of lower-case letters, digits and '_', got {kind!r} and {key!r}"
        )
    return Path(kind, key[:2], key)


class StoreLayout:
    """Folders and locks of the store at `root`; no folder is made before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.tree = Tree(self.root)
        self._holders: dict[tuple[str, str], tuple[int, int]] = {}

    def folder(self, kind: str, key: str) -> Path:
        """Folder of an artifact."""
        return self.root / relative_path(kind, key)

    def checkpoints(self, kind: str, key: str) -> Path:
        """Folder of the checkpoints of a stage."""
        return self.root / CHECKPOINTS / relative_path(kind, key)

    def exists(self) -> bool:
        """Tell whether there is a store, of a format that this version reads.

        Raises:
            StorageError: `root` is something else, or a store of a newer format.
        """
        with atomic.storage_errors(self.root, "read"):
            found = self._format()
            if found is None:
                # Children first: what is not a folder now cannot become one if another process makes the store.
                if not self.tree.children(self.root) and (not self.root.exists() or self.root.is_dir()):
                    return False
                # Another process may have made the store, this file first, in the meantime.
                found = self._format()
            if found is None:
                raise not_a_store(self.root)
        # A process that died between making and filling the file leaves it empty.
        if found:
            check_format(found, str(self.root), shared=False)
        return True

    def _format(self) -> bytes | None:
        """Content of the format file; `None` if it does not exist."""
        try:
            return self.tree.read(self.root / FORMAT_FILE, _MAX_FORMAT)
        except FileNotFoundError:
            return None
        except CorruptArtifactError as damage:
            raise _damaged(str(self.root), shared=False) from damage

    def prepare(self) -> None:
        """Make the format file and the reserved folders if they are missing."""
        self.exists()
        with atomic.storage_errors(self.root):
            atomic.make_folder(self.root)
            if not self.tree.size(self.root / FORMAT_FILE):
                descriptor = self.tree.descriptor(self.root / FORMAT_FILE, os.O_WRONLY | os.O_CREAT)
                atomic.write_chunks(descriptor, [format_text(shared=False).encode()])
            for name in RESERVED:
                self.tree.make_folder(self.root / name)

    def temporary(self, kind: str, key: str) -> Path:
        """Name a new temporary file or folder of a key whose lock the caller holds."""
        return self.root / TEMPORARY / f"{kind}-{key}-{secrets.token_hex(4)}"

    def quarantine(self, path: Path, kind: str = "unknown", key: str = "unknown") -> Path:
        """Move something damaged to the quarantine; returns its new path."""
        self.prepare()
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}{secrets.token_hex(3)}"
        target = self.root / QUARANTINE / f"{kind}-{key}-{stamp}"
        with atomic.storage_errors(path, "move"):
            self.tree.rename(path, target)
        return target

    def discard(self, path: Path, kind: str, key: str) -> None:
        """Remove a file or folder of a key whose lock the caller holds; it is renamed first, so no one reads a part."""
        with atomic.storage_errors(path, "remove"):
            if not self.tree.exists(path):
                return
            renamed = self.temporary(kind, key)
            self.tree.rename(path, renamed)
            self.tree.remove(renamed)

    def is_held(self, kind: str, key: str) -> bool:
        """Tell whether this thread holds the lock of a key."""
        return self._holders.get((kind, key)) == _current_thread()

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Hold the lock of a key, waiting until it is free; a thread that holds it may take it again."""
        if self.is_held(kind, key):
            yield
            return
        lock = self._acquired(kind, key, wait=True)
        assert lock is not None
        with self._holding(lock, kind, key):
            self._remove_leftovers(kind, key)
            yield

    @contextlib.contextmanager
    def lock_if_free(self, kind: str, key: str) -> Iterator[bool]:
        """Hold the lock of a key if it is free; yields whether it was. Leftovers of dead processes are kept."""
        if self.is_held(kind, key):
            yield True
            return
        lock = self._acquired(kind, key, wait=False)
        if lock is None:
            yield False
            return
        with self._holding(lock, kind, key):
            yield True

    def _acquired(self, kind: str, key: str, *, wait: bool) -> int | None:
        """Take the lock of a key and return its descriptor; `None` if it is held and the caller does not wait."""
        self.folder(kind, key)
        self.prepare()
        path, warned = self.root / LOCKS / f"{kind}-{key}.lock", False
        with atomic.storage_errors(path, "lock"):
            while (descriptor := locks.lock(self.tree, path)) is None:
                if not wait:
                    return None
                if not warned:
                    log.warning("waiting for the lock on %s, held by %s", _title(kind, key), self._owner(kind, key))
                    warned = True
                time.sleep(_POLL_SECONDS)
        return descriptor

    @contextlib.contextmanager
    def _holding(self, descriptor: int, kind: str, key: str) -> Iterator[None]:
        owner = self._owner_file(kind, key)
        try:
            self._holders[kind, key] = _current_thread()
            with atomic.storage_errors(owner):
                facts = {"pid": os.getpid(), "host": socket.gethostname()}
                self.tree.remove(owner)  # that of a killed process
                self.tree.write_new(owner, [json.dumps(facts).encode()], sync=False)
            yield
        finally:
            self._holders.pop((kind, key), None)
            with contextlib.suppress(OSError):
                self.tree.remove(owner)
            os.close(descriptor)

    def _remove_leftovers(self, kind: str, key: str) -> None:
        """Remove temporary files of dead processes, of a key whose lock the caller holds."""
        folder = self.root / TEMPORARY
        with atomic.storage_errors(folder, "clean"):
            for path in self.tree.children(folder):
                if path.name.startswith(f"{kind}-{key}-"):
                    self.tree.remove(path)

    def _owner_file(self, kind: str, key: str) -> Path:
        return self.root / LOCKS / f"{kind}-{key}.json"

    def _owner(self, kind: str, key: str) -> str:
        """Describe the process that holds a lock."""
        try:
            owner = decode(self.tree.read(self._owner_file(kind, key), _MAX_FORMAT))
            return f"process {int(owner['pid'])} on {shown(owner['host'])}"
        except (OSError, ValueError, KeyError, TypeError, CorruptArtifactError):
            return "another process"


def split_name(name: str) -> tuple[str, str] | None:
    """Kind and key of a file in the temporary folder or the quarantine; `None` if its name holds none."""
    kind, _, rest = name.partition("-")
    key, dash, _ = rest.partition("-")
    return (kind, key) if dash and is_kind(kind) and is_key(key) else None


def _title(kind: str, key: str) -> str:
    artifact, _, rest = key.rpartition("_") if kind == DOWNLOAD else (kind, "", key)
    return f"{'the download of ' if kind == DOWNLOAD else ''}{artifact} {rest[:12]}"


def format_text(*, shared: bool) -> str:
    """Content of the format file."""
    return json.dumps({"format": FORMAT, "layout": BLOBS} if shared else {"format": FORMAT})


def check_format(data: bytes, address: str, *, shared: bool) -> None:
    """Check the content of a format file.

    Args:
        data: the content.
        address: folder or URL of the store.
        shared: the file belongs to a shared tier.

    Raises:
        StorageError: the file is damaged, or the store is of a newer format or of the other layout.
    """
    try:
        facts = decode(data)
        number, layout = facts["format"], facts.get("layout")
        if type(number) is not int or number < 1:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(address, shared=shared) from None
    if number > FORMAT:
        raise StorageError(
            f"the store {address} has format {number} and this privbench reads up to {FORMAT}; update privbench or "
            f"choose another store with --store or PRIVBENCH_STORE"
        )
    if shared and layout != BLOBS:
        raise StorageError(
            f"{address} is a store for one machine; give its path, or choose another URL for a shared store"
        )
    if not shared and layout is not None:
        raise StorageError(f"{address} is a shared store; give it as file://{address} with --store")


def _damaged(address: str, *, shared: bool) -> StorageError:
    return StorageError(
        f"{address}/{FORMAT_FILE} is damaged; replace it by a file that contains {format_text(shared=shared)} and run "
        f"privbench store check"
    )


def not_a_store(address: Path | str) -> StorageError:
    """Error for a folder or URL that holds something other than a store."""
    return StorageError(
        f"{address} is not a privbench store: it has no {FORMAT_FILE}; choose an empty or new folder with --store or "
        f"PRIVBENCH_STORE"
    )


def _current_thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
