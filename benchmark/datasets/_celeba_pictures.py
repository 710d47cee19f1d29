"""The aligned images of CelebA: a folder or an archive of JPEG files or of their PNG copies."""

import os
import struct
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from ..errors import MissingDataError
from ..files.hashing import crc_file
from ..files.images import MAX_BYTES, SUFFIXES
from . import files
from ._celeba_files import FOLDER, IMAGES, origin, source
from ._decoding import require_decoded
from ._decoding import try_decode as decode_each
from ._encoded import is_doubtful, read_encoded, unreadable

#: Width and height of an aligned image.
ALIGNED = (178, 218)
#: Folders that may stand between: Kaggle's archive gives `img_align_celeba/img_align_celeba`.
_DEEPEST = 2
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: What zipfile raises for archives that are damaged or of a kind that it does not know.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, IndexError),
)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Crop:
    """Part of an aligned image that is kept and resized bilinearly.

    Args:
        box: left, top, width, height in pixels of the aligned image.
        size: of the result, which is square.
    """

    box: tuple[int, int, int, int]
    size: int

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, upper, right, lower, as Pillow expects them."""
        left, top, width, height = self.box
        return left, top, left + width, top + height


class Pictures(ABC, Generic[Item]):
    """Encoded images by the name that the release gives them.

    A name without a file stands for the file that differs in its suffix only: KED-MI's PNG copy of `000001.jpg` is
    `000001.png`.

    Args:
        path: of the folder or archive.
        items: by the name of the file.
        origin: instruction to the user where to download the images.
    """

    def __init__(self, path: Path, items: dict[str, Item], origin: str) -> None:
        self.path, self._items, self._origin = path, items, origin
        self._stems = {PurePath(name).stem: name for name in sorted(items) if is_picture(name)}

    def file(self, name: str) -> str | None:
        """Return the name of the file of an image, or `None` if there is none."""
        return name if name in self._items else self._stems.get(PurePath(name).stem)

    def identify(self, names: Iterable[str]) -> dict[str, str]:
        """Return size and CRC-32 of each encoded image, the same for a folder and an archive of it.

        Raises:
            MissingDataError: an image cannot be read.
        """
        return {name: self._identify(self._item(name)) for name in names}

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read one encoded image, in any thread.

        Raises:
            MissingDataError: it cannot be read, or is too large.
        """

    def suspects(self, names: Sequence[str]) -> list[str]:
        """Return images that may be cut off, as far as a look at the ends of their files tells."""
        return []

    def describe(self, name: str, fault: str) -> str:
        """Make an error message of the fault of an image."""
        return f"{self.path / (self.file(name) or name)} {fault}; replace it: {self._origin}"

    @abstractmethod
    def _identify(self, item: Item) -> str: ...

    def _item(self, name: str) -> Item:
        file = self.file(name)
        assert file is not None
        return self._items[file]


class Folder(Pictures[Path]):
    """Images in a folder, or in the only folder in it, as an archive of the folder itself leaves them.

    Raises:
        MissingDataError: the folder cannot be read.
    """

    def __init__(self, path: Path, origin: str) -> None:
        try:
            where, items = _find_files(path)
        except OSError as error:
            raise MissingDataError(unreadable(path, error)) from None
        super().__init__(where, items, origin)

    def read(self, name: str) -> bytes:
        """Read one encoded image."""
        return read_encoded(self._item(name))

    def suspects(self, names: Sequence[str]) -> list[str]:
        """Return the images whose files do not begin and end as images do."""
        return [name for name in names if is_doubtful(self._item(name))]

    def _identify(self, item: Path) -> str:
        return crc_file(item)


class Archive(Pictures[zipfile.ZipInfo]):
    """Images in a zip archive, in any folders.

    Raises:
        MissingDataError: it is truncated or not a zip archive.
    """

    def __init__(self, path: Path, origin: str) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNREADABLE:
            raise MissingDataError(files.damaged(path, "is truncated or not a zip archive", origin)) from None
        members = [i for i in self._zip.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
        super().__init__(path, {PurePosixPath(i.filename).name: i for i in members}, origin)
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """Read one encoded image; a member that does not match its CRC-32 is an error."""
        member = self._item(name)
        self._identify(member)
        try:
            with self._lock, self._zip.open(member) as file:
                content = file.read(MAX_BYTES + 1)
        except _UNREADABLE as error:
            raise MissingDataError(self._fault(member, f"is damaged at {name} ({error})")) from None
        if len(content) != member.file_size:
            raise MissingDataError(self._fault(member, f"is damaged at {name} (it has another size)"))
        return content

    def _identify(self, item: zipfile.ZipInfo) -> str:
        """Return what the archive states, which `read` verifies."""
        if item.flag_bits & 1:
            raise MissingDataError(self._fault(item, f"is encrypted at {item.filename}"))
        if item.compress_type not in _METHODS:
            raise MissingDataError(
                self._fault(item, f"has {item.filename} in compression {item.compress_type}, not stored or deflated")
            )
        if item.file_size > MAX_BYTES:
            raise MissingDataError(
                self._fault(item, f"has {item.filename} of {item.file_size:,} bytes, more than {MAX_BYTES >> 20} MiB")
            )
        return f"{item.file_size}-{item.CRC:08x}"

    def _fault(self, member: zipfile.ZipInfo, fault: str) -> str:
        return files.damaged(self.path, fault, self._origin)


def find_pictures(root: Path) -> Pictures[Any]:
    """Open the images: the folder if it exists, else the archive.

    Raises:
        MissingDataError: neither exists, or it is of another type.
    """
    folder, archive = root / FOLDER / IMAGES, root / FOLDER / f"{IMAGES}.zip"
    instruction = origin(root, f"{IMAGES}.zip")
    if folder.exists():
        if not folder.is_dir():
            raise MissingDataError(files.missing(folder, instruction))
        return Folder(folder, instruction)
    problem = files.problem(root, source(root, archive.name))
    if problem:
        raise MissingDataError(problem)
    return Archive(archive, instruction)


def decode(pictures: Pictures[Any], names: Sequence[str], crop: Crop) -> Iterator[np.ndarray]:
    """Decode images to pixels `uint8 3 S S`.

    Raises:
        MissingDataError: an image cannot be decoded or is not 178 x 218.
    """
    return require_decoded(try_decode(pictures, names, crop))


def try_decode(pictures: Pictures[Any], names: Sequence[str], crop: Crop) -> Iterator[np.ndarray | str]:
    """Decode each image to pixels `uint8 3 S S`, or to an error message, in threads."""
    return decode_each(names, pictures.read, _cropping(crop), pictures.describe)


def _cropping(crop: Crop) -> Callable[[Image.Image], Image.Image]:
    def cut(image: Image.Image) -> Image.Image:
        if image.size != ALIGNED:
            raise ValueError(
                f"has {image.width} x {image.height} pixels and not 178 x 218: it is resized, cropped or not aligned"
            )
        return image.crop(crop.edges).resize((crop.size, crop.size), Image.Resampling.BILINEAR)

    return cut


def is_picture(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return name.lower().endswith(SUFFIXES)


def _find_files(path: Path, deepest: int = _DEEPEST) -> tuple[Path, dict[str, Path]]:
    """Return the folder that holds images, at or below `path`, and its files by name."""
    with os.scandir(path) as found:
        entries = list(found)
    inner = [entry for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))]
    if deepest and len(inner) == 1 and not any(is_picture(entry.name) for entry in entries):
        return _find_files(Path(inner[0].path), deepest - 1)
    return path, {entry.name: path / entry.name for entry in entries if entry.is_file()}
