"""Extra public images of the user: a folder of JPEG and PNG files of any size, which are not trusted."""

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
from ._decoded import require_decoded

SUFFIXES = (".jpg", ".jpeg", ".png")
#: Limits: an image with more pixels or a file with more bytes is rejected before it is decoded.
MAX_PIXELS = 50_000_000
MAX_BYTES = 64 * 2**20
#: Images decoded at once.
_CHUNK = 512


@dataclass(frozen=True)
class ExtraImages:
    """The images of a folder.

    Args:
        folder: as given.
        names: paths of the images in the folder, sorted.
        digest: SHA-256 of names and contents.
    """

    folder: Path
    names: tuple[str, ...]
    digest: str

    def try_decode(self, size: int) -> Iterator[np.ndarray | str]:
        """Decode each image to its centre square `uint8 3 S S`, resized bilinearly, or to an error message."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(self.names), _CHUNK):
                paths = [self.folder / name for name in self.names[start : start + _CHUNK]]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    warnings.simplefilter("error", Image.DecompressionBombWarning)
                    images = list(pool.map(_decode, paths, repeat(size)))
                yield from images

    def decode(self, size: int) -> Iterator[np.ndarray]:
        """Decode each image as `try_decode` does.

        Raises:
            MissingDataError: an image cannot be decoded, or is too large.
        """
        return require_decoded(self.try_decode(size))


def list_images(folder: Path, private: Path) -> ExtraImages:
    """List and hash the images of a folder and its subfolders.

    Args:
        folder: of the images.
        private: the folder of the data set, whose images must not become public.

    Raises:
        MissingDataError: the folder is missing, unreadable, without images, or overlaps with `private`.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise MissingDataError(_expected(folder, "which is not a folder" if folder.exists() else "which is missing"))
    inner, outer = folder.resolve(), private.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise MissingDataError(_expected(folder, f"which overlaps with {private}, the folder of the private images"))
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
            "or remove it from dataset.extra"
        ) from None
    if not names:
        raise MissingDataError(_expected(folder, "which contains none"))
    return ExtraImages(folder, tuple(names), state.hexdigest())


def _expected(folder: Path, fault: str) -> str:
    wanted = "expected dataset.extra to be a folder of JPEG or PNG images"
    return f"{wanted}, got {str(folder)!r}, {fault}; name another folder"


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _decode(path: Path, size: int) -> np.ndarray | str:
    try:
        if path.stat().st_size > MAX_BYTES:
            return _rejected(path, f"has more than {MAX_BYTES // 2**20} MiB")
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                return _rejected(path, f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _rejected(path, f"has more than {MAX_PIXELS:,} pixels")
    except (OSError, ValueError, SyntaxError) as error:
        cause = "not a JPEG or PNG image" if isinstance(error, UnidentifiedImageError) else error
        return _rejected(path, f"cannot be decoded ({cause})")


def _rejected(path: Path, fault: str) -> str:
    return f"{path} {fault}: repair it or remove it from dataset.extra"
