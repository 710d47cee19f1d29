"""Hashes of files and folders that a component reads, for the keys of stages.

A hash is remembered in this process, and used again only while the file's device, number, size and times of change are
what they were. The time of the last change of status (`ctime`) is set by the operating system: a program that restores
the modification time of a file, such as `cp -p` or `rsync -a`, cannot restore it. A file that changed less than two
seconds before it was hashed is hashed again each time, because clocks of file systems are coarse. Nothing is remembered
from one process to the next.
"""

import hashlib
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path

from ..errors import MissingDataError

#: Seconds within which a change may leave the times of a file as they are, on the coarsest clocks in use.
_COARSE = 2.0
#: Hashes that are remembered at most: those of two copies of CelebA.
_MOST = 1 << 19
_known: dict[tuple[str, int, int, int, int, int], str] = {}


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits.

    Args:
        path: of the file; a link stands for the file that it points to.

    Raises:
        MissingDataError: there is no such file, or it cannot be read.
    """
    try:
        return _hash_file(Path(path).expanduser())
    except OSError as cause:
        raise _unreadable(Path(path), cause) from cause


def hash_folder(path: str | Path, suffixes: Sequence[str] = ()) -> str:
    """Return the SHA-256 of the names and contents of all files in a folder and its subfolders.

    Names are relative to the folder, with `/`, and sorted by their bytes, so the hash does not depend on where the
    folder is or on the order of the disk. Links stand for what they point to. Hidden files count like others; give
    `suffixes` where a program may leave files such as `.DS_Store` beside yours. Empty folders, pipes and devices do not
    count.

    Args:
        path: of the folder.
        suffixes: endings of the names that count, such as `(".png", ".jpg")`, in any case; all files without them.

    Raises:
        MissingDataError: there is no such folder, no file in it counts, or something in it cannot be read.
    """
    root = Path(path).expanduser()
    state, count = hashlib.sha256(), 0
    endings = tuple(suffix.lower() for suffix in suffixes)
    try:
        for name, entry in sorted(_files(root, b"", frozenset())):
            if endings and not os.fsdecode(name).lower().endswith(endings):
                continue
            state.update(hashlib.sha256(name).digest() + bytes.fromhex(_hash_file(entry)))
            count += 1
    except OSError as cause:
        raise _unreadable(Path(path), cause) from cause
    if not count:
        wanted = f" that end in {' or '.join(suffixes)}" if suffixes else ""
        raise MissingDataError(f"expected the folder {path} to hold files{wanted}, found none; put them there")
    return state.hexdigest()


def _files(folder: Path, prefix: bytes, above: frozenset[tuple[int, int]]) -> Iterator[tuple[bytes, Path]]:
    """Yield the relative name and the path of each regular file; `above` are the folders that lead here."""
    facts = folder.stat()
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        raise MissingDataError(f"expected {folder} to lead elsewhere, got a link to a folder above it; remove the link")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + os.fsencode(entry.name)
            if entry.is_dir():
                yield from _files(Path(entry.path), name + b"/", above | {here})
            elif entry.is_file():
                yield name, Path(entry.path)
            elif entry.is_symlink() and not Path(entry.path).exists():
                raise MissingDataError(f"expected {entry.path} to lead to a file, got a broken link; remove it")


def crc_file(path: Path) -> str:
    """Return size and CRC-32 of a file as a zip archive states them, such as `6148-0a1b2c3d`.

    It tells copies apart that differ by accident, and it is the same for a file in an archive and beside it.

    Raises:
        MissingDataError: there is no such file, or it cannot be read.
    """
    try:
        return _remembered(path, "crc32", _crc)
    except OSError as cause:
        raise _unreadable(path, cause) from cause


def _hash_file(path: Path) -> str:
    return _remembered(path, "sha256", lambda stream: hashlib.file_digest(stream, "sha256").hexdigest())


def _crc(stream: BufferedReader) -> str:
    crc = size = 0
    while chunk := stream.read(1 << 20):
        crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return f"{size}-{crc:08x}"


def _remembered(path: Path, method: str, compute: Callable[[BufferedReader], str]) -> str:
    """Compute a hash of a file's content, or return what is remembered of it."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise MissingDataError(f"expected {path} to be a file, got something else; name a file")
    key = (method, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if key in _known:
        return _known[key]
    began = time.time()
    with path.open("rb") as stream:
        found = compute(stream)
    if began - max(facts.st_mtime, facts.st_ctime) > _COARSE:
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = found
    return found


def _unreadable(path: Path, cause: OSError) -> MissingDataError:
    if isinstance(cause, FileNotFoundError | NotADirectoryError) and not path.expanduser().exists():
        return MissingDataError(f"{path} is missing: put it there, or name another path")
    reason = (cause.strerror or str(cause)).lower()
    return MissingDataError(f"cannot read {cause.filename or path}: {reason}; change its permissions")
