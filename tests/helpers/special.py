"""Files that are none: what a reader must neither wait for nor read to its end."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def pipe(path: Path) -> None:
    """Nobody writes into it."""
    os.mkfifo(path)


def device(path: Path) -> None:
    """A link to a device that has no end."""
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    """A socket; its path may be long."""
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def sparse(path: Path) -> None:
    """Ten gigabytes that take no space."""
    path.touch()
    os.truncate(path, 10 << 30)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": pipe, "link to a device": device, "socket": listening, "sparse": sparse, "folder": Path.mkdir,
}  # fmt: skip
