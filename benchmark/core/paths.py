"""Folders of privbench: given by the caller, else by an environment variable, else the platform's default."""

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from ..errors import InvalidConfigurationError, StorageError

#: The scheme of a URL has at least two letters: `c:/store` is a Windows folder.
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_SQUASHED_URL = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Address of a store, with which other processes and machines can open it.

    Args:
        root: the local folder.
        remote: URL of the shared tier; `None` for a store with only a local folder.
    """

    root: str
    remote: str | None = None

    def __str__(self) -> str:
        return self.remote or self.root


def cache_root() -> Path:
    """Folder of recomputable files: `PRIVBENCH_CACHE`, else `privbench` in the user's cache folder."""
    return _chosen(None, "PRIVBENCH_CACHE") or user_cache_path("privbench", appauthor=False)


def store_root(given: str | Path | Address | None = None) -> Address:
    """Address of the store: `given`, else `PRIVBENCH_STORE`, else `store` in the cache folder.

    A URL, such as `s3://bucket/path`, `file:///shared/store` or `memory://name`, is a tier that machines share; its
    local tier is a separate folder in the cache folder.

    Raises:
        InvalidConfigurationError: the URL has no path, is relative, or contains a password.
    """
    if isinstance(given, Address):
        return given
    text = str(given) if given is not None else os.environ.get("PRIVBENCH_STORE", "")
    if not text:
        return Address(str(cache_root() / "store"))
    found = _URL.fullmatch(text)
    if "://" not in text and not _SQUASHED_URL.match(text):
        return Address(str(Path(text).expanduser().absolute()))
    remote = _checked_url(text, *(found.groups() if found else ("", "")))
    slug = re.sub(r"[^A-Za-z0-9]+", "-", remote)[:40].strip("-")
    return Address(str(cache_root() / "stores" / f"{slug}-{hashlib.sha256(remote.encode()).hexdigest()[:16]}"), remote)


def _checked_url(text: str, scheme: str, rest: str) -> str:
    """Check a URL and return its normal form, from which the local tier gets its name."""
    rest = rest.rstrip("/")
    valid = bool(rest) and rest.isprintable() and not any(part in rest for part in ("::", *"*?[]# \\"))
    valid = valid and not re.match("[^/@]*:[^/@]*@", rest)
    if scheme.lower() in {"file", "local"}:
        valid = valid and rest.startswith("/") and ".." not in rest.split("/")
    if not valid:
        shown = re.sub(r"//[^/]*@", "//...@", text)
        raise InvalidConfigurationError(
            "expected a store's URL to be like s3://bucket/path or file:///absolute/path, without passwords, blanks "
            f"and the characters * ? [ ] #, got {shown!r}; set --store or PRIVBENCH_STORE to a folder or such a URL"
        )
    return f"{scheme.lower()}://{rest}"


def data_root(given: str | Path | None = None) -> Path:
    """Folder of the data sets: `given`, else `PRIVBENCH_DATA`, else `data` in the user's data folder."""
    return _chosen(given, "PRIVBENCH_DATA") or user_data_path("privbench", appauthor=False) / "data"


def weights_root(given: str | Path | None = None) -> Path:
    """Folder of imported weights: `given`, else `PRIVBENCH_WEIGHTS`, else `weights` in the user's data folder."""
    return _chosen(given, "PRIVBENCH_WEIGHTS") or user_data_path("privbench", appauthor=False) / "weights"


def results_root(given: str | Path | None = None) -> Path:
    """Folder of the results: `given`, else `PRIVBENCH_RESULTS`, else `results` in the working directory."""
    return _chosen(given, "PRIVBENCH_RESULTS") or Path("results")


def _chosen(given: str | Path | None, variable: str) -> Path | None:
    """Return the caller's folder or the variable's; an empty variable counts as unset, `~` means the home folder."""
    if given is not None:
        return Path(given).expanduser()
    named = os.environ.get(variable, "")
    return Path(named).expanduser() if named else None


def require_writable(folder: Path) -> None:
    """Reject a folder that cannot be created or written, before anything is computed for it.

    Raises:
        StorageError: the folder is below a file, or is not writable.
    """
    parent = folder
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise StorageError(f"expected {folder} to be a writable folder, but {parent} prevents that; choose another")


def short_temporary_root(room: int) -> str | None:
    """Return a folder for sockets whose paths add `room` bytes; `None` if the usual temporary folder is short enough.

    The path of a socket has at most 103 bytes on the strictest system.

    Raises:
        StorageError: the usual folder is too long, and no short one is writable.
    """
    usual = tempfile.gettempdir()
    longest = 103 - room
    if len(os.fsencode(usual)) <= longest:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise StorageError(f"expected TMPDIR to have at most {longest} characters, got {usual}; set it to a shorter folder")
