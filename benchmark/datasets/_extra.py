"""Further public images that a user names: a folder of JPEG and PNG files of any size, read with care."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import MissingDataError

SUFFIXES = (".jpg", ".jpeg", ".png")
#: An image of more pixels, or a file of more bytes, is refused before it is decoded.
PIXELS = 50_000_000
BYTES = 64 * 2**20
#: Images decoded together.
_CHUNK = 512


@dataclass(frozen=True)
class Extra:
    """A folder that has been looked through.

    Args:
        folder: as given.
        names: of the images, by their path in the folder, sorted.
        digest: SHA-256 of names and contents.
    """

    folder: Path
    names: tuple[str, ...]
    digest: str

    def attempts(self, size: int) -> Iterator[np.ndarray | str]:
        """Centre squares `uint8 3 S S`, resized bilinearly; or the sentence that says why there is none."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(self.names), _CHUNK):
                paths = [self.folder / name for name in self.names[start : start + _CHUNK]]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    warnings.simplefilter("error", Image.DecompressionBombWarning)
                    found = list(pool.map(_decode, paths, repeat(size)))
                yield from found

    def decode(self, size: int) -> Iterator[np.ndarray]:
        """As `attempts`.

        Raises:
            MissingDataError: an image cannot be decoded, or is too large.
        """
        for found in self.attempts(size):
            if isinstance(found, str):
                raise MissingDataError(found)
            yield found


def look(folder: Path, private: Path) -> Extra:
    """List and digest the images of a folder and the folders in it.

    Args:
        folder: of the images.
        private: the folder of the data set, whose images must not become public this way.

    Raises:
        MissingDataError: the folder is not there, cannot be read, has no image, or overlaps with `private`.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise MissingDataError(_expected(folder, "which is no folder" if folder.exists() else "which is missing"))
    inner, outer = folder.resolve(), private.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise MissingDataError(_expected(folder, f"which shares images with {private}, where the private ones are"))
    state = hashlib.sha256()
    try:
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        for name in names:
            state.update(hashlib.sha256(os.fsencode(name)).digest() + _digest(folder / name))
    except OSError as error:
        raise MissingDataError(
            f"{error.filename or folder} cannot be read ({error.strerror or error}): change its permissions, "
            "or take it out of dataset.extra"
        ) from None
    if not names:
        raise MissingDataError(_expected(folder, "which holds none"))
    return Extra(folder, tuple(names), state.hexdigest())


def _expected(folder: Path, fault: str) -> str:
    wanted = "expected dataset.extra to be a folder of JPEG or PNG images"
    return f"{wanted}, got {str(folder)!r}, {fault}; name another folder"


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _decode(path: Path, size: int) -> np.ndarray | str:
    try:
        if path.stat().st_size > BYTES:
            return _refused(path, f"has more than {BYTES // 2**20} MiB")
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            if image.width * image.height > PIXELS:
                return _refused(path, f"has {image.width} x {image.height} pixels, more than {PIXELS:,}")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _refused(path, f"has more than {PIXELS:,} pixels")
    except (OSError, ValueError, SyntaxError) as error:
        cause = "not a JPEG or PNG image" if isinstance(error, UnidentifiedImageError) else error
        return _refused(path, f"cannot be decoded ({cause})")


def _refused(path: Path, fault: str) -> str:
    return f"{path} {fault}: repair it or take it out of dataset.extra"
