"""Where things are kept: what the caller names, else an environment variable, else the platform's usual folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """What can be made or fetched again: `privbench` in the user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path("privbench", appauthor=False)


def store_root(given: Path | None = None) -> Path:
    """The store: `given`, else `PRIVBENCH_STORE`, else `store` in the cache folder."""
    return _chosen(given, "PRIVBENCH_STORE") or cache_root() / "store"


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
    from .errors import StorageError

    parent = folder
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise StorageError(
            f"expected {folder} to be a folder that can be written, got {parent} in the way; choose another"
        )
