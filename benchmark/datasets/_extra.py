"""Extra public images of the user: a folder of JPEG and PNG files of any size, which are not trusted."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import MissingDataError
from ..files.images import SUFFIXES
from . import _decoding
from ._decoding import require_decoded
from ._encoded import is_doubtful, read_encoded


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

    def try_decode(self, size: int, names: Sequence[str] | None = None) -> Iterator[np.ndarray | str]:
        """Decode each image to its centre square `uint8 3 S S`, resized bilinearly, or to an error message.

        Args:
            size: S.
            names: of the images; all without them.
        """
        return _decoding.try_decode(
            self.names if names is None else names,
            lambda name: read_encoded(self.folder / name),
            _squaring(size),
            lambda name, fault: f"{self.folder / name} {fault}: repair it or remove it from dataset.extra",
        )

    def require_whole(self) -> None:
        """Decode the images whose files do not begin and end as images do.

        Raises:
            MissingDataError: one of them cannot be decoded.
        """
        doubtful = [name for name in self.names if is_doubtful(self.folder / name)]
        for _ in require_decoded(self.try_decode(1, doubtful)):
            pass

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


def _squaring(size: int) -> Callable[[Image.Image], Image.Image]:
    def square(image: Image.Image) -> Image.Image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        centre = image.crop((left, top, left + side, top + side))
        return centre.resize((size, size), Image.Resampling.BILINEAR)

    return square
