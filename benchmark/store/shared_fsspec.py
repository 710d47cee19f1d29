"""Any file system of fsspec as the shared tier."""

import contextlib
import io
import secrets
import shutil
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import InvalidConfigurationError
from .layout import TEMPORARY

#: Object stores: writes are atomic, and creation can be exclusive.
_ATOMIC = {"s3", "s3a", "gs", "gcs"}
_CHUNK = 1 << 24
#: Makes creation exclusive in fsspec's file system in memory.
_CREATION = threading.Lock()


class Objects:
    """Files below a URL.

    Args:
        url: of any protocol that fsspec knows.

    Raises:
        InvalidConfigurationError: the protocol is unknown, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self._protocol = url.partition("://")[0]
        try:
            self._fs, self._root = url_to_fs(url)
        except ImportError as cause:
            missing = getattr(cause.__cause__ or cause, "name", None) or self._protocol
            needed = missing.partition(".")[0]
            raise InvalidConfigurationError(f"a store at {url} needs {needed}: pip install {needed}") from cause
        except ValueError as cause:
            raise InvalidConfigurationError(
                f"expected a store's URL to have a protocol that fsspec knows, got {url!r}: {cause}"
            ) from cause

    def read(self, name: str, start: int, end: int) -> bytes:
        """Read bytes `start` to `end` of a file, fewer if it is shorter."""
        path = self._path(name)
        try:
            return bytes(self._fs.cat_file(path, start=start, end=end))
        except (FileNotFoundError, PermissionError, TimeoutError, ConnectionError):
            raise
        except (OSError, ValueError):
            # Object stores refuse a range that starts at the end of the file.
            self._fs.invalidate_cache()
            if self._fs.info(path)["size"] > start:
                raise
            return b""

    def put(self, name: str, source: Path) -> None:
        """Copy a local file to `name`, atomically, replacing an earlier file."""
        path = self._path(name)
        if self._protocol in _ATOMIC:
            self._fs.put_file(str(source), path)
        elif self._protocol == "memory":
            self._fs.pipe_file(path, source.read_bytes())
        else:
            with source.open("rb") as file:
                self._put(path, file)

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, atomically; if several processes create it at once, one succeeds.

        Raises:
            FileExistsError: the file exists.

        Note:
            Only S3 and Google Cloud Storage have exclusive creation; on other protocols the last of several that
            create the file within milliseconds wins.
        """
        path = self._path(name)
        if self._protocol in _ATOMIC:
            self._fs.pipe_file(path, data, mode="create")
        elif self._protocol == "memory":
            with _CREATION:
                self._fs.pipe_file(path, data, mode="create")
        elif self._fs.exists(path):
            raise FileExistsError(path)
        else:
            self._put(path, io.BytesIO(data))

    def _put(self, path: str, file: Any) -> None:
        temporary = self._path(f"{TEMPORARY}/{secrets.token_hex(16)}")
        for folder in (temporary, path):
            self._fs.makedirs(folder.rpartition("/")[0], exist_ok=True)
        try:
            with self._fs.open(temporary, "wb") as copy:
                shutil.copyfileobj(file, copy, _CHUNK)
            self._fs.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def move(self, name: str, target: str) -> None:
        """Rename a file."""
        if self._protocol not in _ATOMIC:
            self._fs.makedirs(self._path(target).rpartition("/")[0], exist_ok=True)
        self._fs.mv(self._path(name), self._path(target))

    def remove(self, name: str) -> None:
        """Remove a file; do nothing if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes, by name."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        below = f"{self._root}/"
        files = {path: facts for path, facts in found.items() if path.startswith(below) and not path.endswith("/")}
        return {path.removeprefix(below): int(facts["size"] or 0) for path, facts in files.items()}

    def modified(self, name: str) -> datetime | None:
        """Time when a file was written, by the server's clock; `None` if no time is kept."""
        self._fs.invalidate_cache()
        try:
            found: datetime = self._fs.modified(self._path(name))
        except NotImplementedError:
            return None
        return found

    def top(self) -> set[str]:
        """Names of the files and folders at the top level."""
        self._fs.invalidate_cache()
        try:
            found = {path.rstrip("/") for path in self._fs.ls(self._root, detail=False)} - {self._root}
        except FileNotFoundError:
            return set()
        return {path.rpartition("/")[2] for path in found}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
