"""Where things are kept: what the caller names, else an environment variable, else the platform's usual folder."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

#: A protocol has two letters or more: `c:/store` is a folder of Windows.
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_SQUASHED_URL = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where a store is, for other processes and machines to open the same one.

    Args:
        root: the local folder.
        remote: URL of the tier that others share; `None` where the folder is all.
    """

    root: str
    remote: str | None = None

    def __str__(self) -> str:
        return self.remote or self.root


def cache_root() -> Path:
    """What can be made or fetched again: `PRIVBENCH_CACHE`, else `privbench` in the user's cache folder."""
    from platformdirs import user_cache_path

    return _chosen(None, "PRIVBENCH_CACHE") or user_cache_path("privbench", appauthor=False)


def store_root(given: str | Path | Address | None = None) -> Address:
    """The store: `given`, else `PRIVBENCH_STORE`, else `store` in the cache folder.

    A URL, such as `s3://bucket/path`, `file:///shared/store` or `memory://name`, is a tier that machines share; its
    local tier is a folder of its own in the cache folder.

    Raises:
        InvalidConfigurationError: a URL without a path, relative, or with a password in it.
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


def _checked_url(text: str, protocol: str, rest: str) -> str:
    """The URL in the one form that names its local tier."""
    from ..errors import InvalidConfigurationError

    rest = rest.rstrip("/")
    fits = bool(rest) and rest.isprintable() and not any(part in rest for part in ("::", *"*?[]# \\"))
    fits = fits and not re.match("[^/@]*:[^/@]*@", rest)
    if protocol.lower() in {"file", "local"}:
        fits = fits and rest.startswith("/") and ".." not in rest.split("/")
    if not fits:
        shown = re.sub(r"//[^/]*@", "//...@", text)
        raise InvalidConfigurationError(
            f"expected a store's URL to be like s3://bucket/path or file:///absolute/path, without passwords and the "
            f"characters * ? [ ] # and blanks, got {shown!r}; give a folder or such a URL with --store or "
            f"PRIVBENCH_STORE"
        )
    return f"{protocol.lower()}://{rest}"


def data_root(given: Path | None = None) -> Path:
    """The data sets: `given`, else `PRIVBENCH_DATA`, else `data` in the user's data folder."""
    from platformdirs import user_data_path

    return _chosen(given, "PRIVBENCH_DATA") or user_data_path("privbench", appauthor=False) / "data"


def weights_root(given: Path | None = None) -> Path:
    """Weights that the user brings: `given`, else `PRIVBENCH_WEIGHTS`, else `weights` in the user's data folder."""
    from platformdirs import user_data_path

    return _chosen(given, "PRIVBENCH_WEIGHTS") or user_data_path("privbench", appauthor=False) / "weights"


def results_root(given: Path | None = None) -> Path:
    """The results: `given`, else `PRIVBENCH_RESULTS`, else `results` in the working folder."""
    return _chosen(given, "PRIVBENCH_RESULTS") or Path("results")


def _chosen(given: Path | None, variable: str) -> Path | None:
    """The caller's folder or the variable's; an empty variable counts as unset, a leading `~` is the home folder."""
    if given is not None:
        return given.expanduser()
    named = os.environ.get(variable, "")
    return Path(named).expanduser() if named else None


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before anything is computed for it.

    Raises:
        StorageError: it is below a file, or not writable.
    """
    from ..errors import StorageError

    parent = folder
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise StorageError(
            f"expected {folder} to be a folder that can be written, got {parent} in the way; choose another"
        )
