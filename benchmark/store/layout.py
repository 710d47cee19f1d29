"""Folders and locks of a store: where a key's files lie, who works on a key, where damaged files go.

One lock a key governs all that is written for the key: the artifact, its checkpoints, and the temporary files of
both. Whoever holds it may therefore remove any temporary file of the key, since its writer must be dead.
"""

from __future__ import annotations

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

from filelock import FileLock, Timeout

from ..errors import InvalidConfigurationError, StorageError
from ..files import atomic
from .manifest import FORMAT

log = logging.getLogger("privbench")
FORMAT_FILE = "format.json"
LOCKS, TEMPORARY, QUARANTINE, CHECKPOINTS = "locks", "tmp", "quarantine", "checkpoints"
RESERVED = (LOCKS, TEMPORARY, QUARANTINE, CHECKPOINTS)
#: Of the shared tier, which has artifacts of the same kinds beside it.
BLOBS = "blobs"
#: Under this kind downloads are locked, so that nobody waits for one who computes the same.
DOWNLOAD = "download"
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KEY = re.compile(r"[0-9a-z_]{3,128}")
_POLL_SECONDS = 0.1


def is_kind(name: str) -> bool:
    """Whether a folder of this name in a store may hold artifacts."""
    return bool(_KIND.fullmatch(name)) and name not in (*RESERVED, BLOBS)


def is_key(name: str) -> bool:
    """Whether `name` may be a key."""
    return bool(_KEY.fullmatch(name))


def place(kind: str, key: str) -> Path:
    """Where an artifact is, relative to its store.

    Raises:
        InvalidConfigurationError: kind or key are no names.
    """
    if not is_kind(kind) or not is_key(key):
        raise InvalidConfigurationError(
            f"expected kind and key to be of lower-case letters, digits and '_', got {kind!r} and {key!r}"
        )
    return Path(kind, key[:2], key)


class StoreLayout:
    """Folders and locks of the store at `root`; nothing is made before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self._holders: dict[tuple[str, str], tuple[int, int]] = {}

    def folder(self, kind: str, key: str) -> Path:
        """Of an artifact."""
        return self.root / place(kind, key)

    def checkpoints(self, kind: str, key: str) -> Path:
        """Of the checkpoints of a stage."""
        return self.root / CHECKPOINTS / place(kind, key)

    def exists(self) -> bool:
        """Whether there is a store, of a format that this version reads.

        Raises:
            StorageError: `root` is something else, or a store of a newer format.
        """
        with atomic.storage_errors(self.root, "read"):
            found = self._format()
            if found is None:
                # In this order: what is there and no folder has not just been made one by another process.
                if not atomic.children(self.root) and (not self.root.exists() or self.root.is_dir()):
                    return False
                # Another process may have made the store, this file first, between the two looks.
                found = self._format()
            if found is None:
                raise StorageError(
                    f"{self.root} is no store of privbench: it has no {FORMAT_FILE}; choose an empty or new folder "
                    f"with --store or PRIVBENCH_STORE"
                )
        # A process that died between making and filling the file leaves it empty.
        return not found or self._is_readable(found)

    def _format(self) -> bytes | None:
        """What the file of the format holds; `None` if there is no such file."""
        try:
            return atomic.read(self.root / FORMAT_FILE)
        except FileNotFoundError:
            return None

    def _is_readable(self, found: bytes) -> bool:
        try:
            facts = json.loads(found)
            number, layout = facts["format"], facts.get("layout")
            if type(number) is not int or number < 1:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise StorageError(
                f"{self.root / FORMAT_FILE} is damaged; write {_format_text()} into it and run privbench store check"
            ) from None
        if number > FORMAT:
            raise StorageError(
                f"the store {self.root} has format {number} and this privbench reads up to {FORMAT}; update privbench "
                f"or choose another folder with --store or PRIVBENCH_STORE"
            )
        if layout is not None:
            raise StorageError(f"{self.root} is a store that machines share; name it file://{self.root} with --store")
        return True

    def prepare(self) -> None:
        """Make what is missing of the store's own folders."""
        self.exists()
        with atomic.storage_errors(self.root):
            atomic.make_folder(self.root)
            path = self.root / FORMAT_FILE
            if not atomic.size(path):
                path.write_text(_format_text(), encoding="utf-8")
            for name in RESERVED:
                atomic.make_folder(self.root / name)

    def temporary(self, kind: str, key: str) -> Path:
        """A new name for a temporary file or folder of a key, whose lock the caller holds."""
        return self.root / TEMPORARY / f"{kind}-{key}-{secrets.token_hex(4)}"

    def quarantine(self, path: Path, kind: str = "unknown", key: str = "unknown") -> Path:
        """Move what is damaged out of the way; returns where it went."""
        self.prepare()
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}{secrets.token_hex(3)}"
        target = self.root / QUARANTINE / f"{kind}-{key}-{stamp}"
        with atomic.storage_errors(path, "move"):
            path.rename(target)
        return target

    def discard(self, path: Path, kind: str, key: str) -> None:
        """Remove at once what the holder of a key's lock no longer wants: renamed first, so none sees a half of it."""
        with atomic.storage_errors(path, "remove"):
            if not os.path.lexists(path):
                return
            away = self.temporary(kind, key)
            path.rename(away)
            atomic.remove(away)

    def is_held(self, kind: str, key: str) -> bool:
        """Whether this thread holds the lock of a key."""
        return self._holders.get((kind, key)) == _me()

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Hold the lock of a key, waiting for whoever holds it; within one thread it may be taken again."""
        if self.is_held(kind, key):
            yield
            return
        lock = self._acquired(kind, key, wait=True)
        assert lock is not None
        with self._holding(lock, kind, key):
            self._sweep(kind, key)
            yield

    @contextlib.contextmanager
    def lock_if_free(self, kind: str, key: str) -> Iterator[bool]:
        """Hold the lock of a key if nobody else does; the value says whether. Leftovers of dead processes stay."""
        if self.is_held(kind, key):
            yield True
            return
        lock = self._acquired(kind, key, wait=False)
        if lock is None:
            yield False
            return
        with self._holding(lock, kind, key):
            yield True

    def _acquired(self, kind: str, key: str, *, wait: bool) -> FileLock | None:
        self.folder(kind, key)
        self.prepare()
        path = self.root / LOCKS / f"{kind}-{key}.lock"
        lock, told = FileLock(path), False
        while not _try(lock, path):
            if not wait:
                return None
            if not told:
                log.warning("waiting for %s, which works on %s", self._owner(kind, key), _title(kind, key))
                told = True
            time.sleep(_POLL_SECONDS)
        return lock

    @contextlib.contextmanager
    def _holding(self, lock: FileLock, kind: str, key: str) -> Iterator[None]:
        owner = self._owner_file(kind, key)
        try:
            self._holders[kind, key] = _me()
            with atomic.storage_errors(owner):
                owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
            yield
        finally:
            self._holders.pop((kind, key), None)
            with contextlib.suppress(OSError):
                owner.unlink()
            lock.release()

    def _sweep(self, kind: str, key: str) -> None:
        """Remove temporary files that dead processes left of a key whose lock the caller holds."""
        folder = self.root / TEMPORARY
        with atomic.storage_errors(folder, "clean"):
            for path in folder.glob(f"{kind}-{key}-*"):
                atomic.remove(path)

    def _owner_file(self, kind: str, key: str) -> Path:
        return self.root / LOCKS / f"{kind}-{key}.json"

    def _owner(self, kind: str, key: str) -> str:
        """Who holds a lock, as far as is known."""
        try:
            owner = json.loads(self._owner_file(kind, key).read_text(encoding="utf-8"))
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def split_name(name: str) -> tuple[str, str] | None:
    """Kind and key of a file in the temporary folder or the quarantine; `None` where the name is not one of ours."""
    kind, _, rest = name.partition("-")
    key, dash, _ = rest.partition("-")
    return (kind, key) if dash and is_kind(kind) and is_key(key) else None


def _try(lock: FileLock, path: Path) -> bool:
    try:
        with atomic.storage_errors(path, "lock"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
    except NotImplementedError as cause:
        raise StorageError(f"cannot lock {path}: its file system has no locks; choose another folder") from cause
    return True


def _title(kind: str, key: str) -> str:
    artifact, _, rest = key.rpartition("_") if kind == DOWNLOAD else (kind, "", key)
    return f"{'the download of ' if kind == DOWNLOAD else ''}{artifact} {rest[:12]}"


def _format_text() -> str:
    return json.dumps({"format": FORMAT})


def _me() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
