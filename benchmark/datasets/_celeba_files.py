"""The three files of CelebA's official release: aligned images, identities, attributes."""

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import MissingDataError
from ..files.hashing import crc_file
from . import files
from ._decoded import require_decoded

FOLDER = "celeba"
IDENTITIES = "identity_CelebA.txt"
ATTRIBUTES = "list_attr_celeba.txt"
IMAGES = "img_align_celeba"
#: Number of images of the release.
COUNT = 202_599
#: MD5 of the published files, as listed by torchvision.
PUBLISHED = {
    f"{IMAGES}.zip": "00d2c5bc6d35e252742224ab0c1e8fcb",
    IDENTITIES: "32bd1bd63d3c78cd57e08160ec5ed1e2",
    ATTRIBUTES: "75e246fa4810816ffd6ee81facbd244c",
}
#: Width and height of an aligned image.
ALIGNED = (178, 218)
#: Images read before a chunk is decoded in threads.
_CHUNK = 512


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


def origin(root: Path, name: str) -> str:
    """Instruction to the user where to download a file."""
    return (
        f"download {name} of CelebA in a browser (mmlab.ie.cuhk.edu.hk/projects/CelebA.html; the quota of its "
        f"Google Drive blocks scripts) and put it into {root / FOLDER}"
    )


def source(root: Path, name: str, md5: str | None = None) -> files.DownloadSource:
    """Describe one of the release's files."""
    return files.DownloadSource(f"{FOLDER}/{name}", origin(root, name), md5=md5)


def read_identities(path: Path, content: bytes) -> dict[str, int]:
    """Read the identity number of each image, in the order of the file.

    Raises:
        MissingDataError: a line is not `NAME NUMBER`, or a name is repeated.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(path, content), 1):
        words = line.split()
        if len(words) != 2 or not words[1].isdecimal():
            raise MissingDataError(f"expected line {number} of {path} to be 'IMAGE IDENTITY', got {line[:60]!r}")
        found[words[0]] = int(words[1])
        if len(found) != number:
            raise MissingDataError(f"expected {path} to list each image once, got {words[0]} again in line {number}")
    return found


@dataclass(frozen=True)
class Attributes:
    """Binary attributes of images.

    Args:
        path: of the file.
        names: of the A attributes.
        rows: of each image, as text.
    """

    path: Path
    names: tuple[str, ...]
    rows: dict[str, str]

    def of(self, images: Sequence[str], wanted: Sequence[str] = ()) -> Tensor:
        """Return the values `bool N A` of images by name, for the wanted attributes or all.

        Raises:
            MissingDataError: an image has no row, its row is not A values of 1 or -1, or an attribute is missing.
        """
        absent = [name for name in wanted if name not in self.names]
        if absent:
            raise MissingDataError(
                f"expected {self.path} to have the attribute {absent[0]}, got {len(self.names)} others; "
                "download the attributes and the identities from the same release"
            )
        values = np.empty((len(images), len(self.names)), dtype=bool)
        for index, image in enumerate(images):
            words = self.rows.get(image, "").split()
            if len(words) != len(self.names) or not {*words} <= {"1", "-1"}:
                raise MissingDataError(
                    f"expected {self.path} to give {image} {len(self.names)} values of 1 or -1, got {words!s:.40}; "
                    "download the attributes and the identities from the same release"
                )
            values[index] = [word == "1" for word in words]
        columns = [self.names.index(name) for name in wanted]
        return torch.from_numpy(values[:, columns] if columns else values)


def read_attributes(path: Path, content: bytes) -> Attributes:
    """Read the attributes of all images.

    Raises:
        MissingDataError: the first line does not state the number of rows that follow.
    """
    lines = _lines(path, content)
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise MissingDataError(f"expected {path} to begin with the number of images and the attributes' names")
    if len(lines) - 2 != int(lines[0]):
        raise MissingDataError(
            f"{path} is truncated: its first line says {int(lines[0]):,} images, but it lists {len(lines) - 2:,}"
        )
    rows = {name: values for name, _, values in (line.partition(" ") for line in lines[2:])}
    return Attributes(path, tuple(lines[1].split()), rows)


def _lines(path: Path, content: bytes) -> list[str]:
    try:
        return [line for line in content.decode("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise MissingDataError(
            f"expected {path} to be a text file of CelebA, got other bytes; download it again"
        ) from None


class Folder:
    """Images of the folder `img_align_celeba`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """Return the names of all images."""
        with os.scandir(self.path) as entries:
            return {entry.name for entry in entries if entry.is_file()}

    def identify(self, names: Iterable[str]) -> dict[str, str]:
        """Return size and CRC-32 of each encoded image, as an archive states them."""
        return {name: crc_file(self.path / name) for name in names}

    def read(self, name: str) -> bytes:
        """Read one encoded image."""
        return (self.path / name).read_bytes()


class Archive:
    """Images of the archive `img_align_celeba.zip`, in any folders.

    Raises:
        MissingDataError: it is truncated or not a zip archive.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self.path = path
        self._origin = origin
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError):
            raise MissingDataError(files.damaged(path, "is truncated or not a zip archive", origin)) from None
        self._members = {PurePosixPath(i.filename).name: i for i in self._zip.infolist() if not i.is_dir()}

    def names(self) -> set[str]:
        """Return the names of all images."""
        return set(self._members)

    def identify(self, names: Iterable[str]) -> dict[str, str]:
        """Return size and CRC-32 of each encoded image; `read` verifies them."""
        members = {name: self._members[name] for name in names}
        return {name: f"{member.file_size}-{member.CRC:08x}" for name, member in members.items()}

    def read(self, name: str) -> bytes:
        """Read one encoded image."""
        try:
            return self._zip.read(self._members[name])
        except (zipfile.BadZipFile, zipfile.zlib.error, EOFError) as error:  # type: ignore[attr-defined]
            raise MissingDataError(files.damaged(self.path, f"is damaged at {name} ({error})", self._origin)) from None


#: Encoded images by name.
Pictures = Folder | Archive


def find_pictures(root: Path) -> Pictures:
    """Open the images: the folder if it exists, else the archive.

    Raises:
        MissingDataError: neither exists, or it is of another type.
    """
    folder, archive = root / FOLDER / IMAGES, root / FOLDER / f"{IMAGES}.zip"
    instruction = origin(root, f"{IMAGES}.zip")
    if folder.exists():
        if not folder.is_dir():
            raise MissingDataError(files.missing(folder, instruction))
        return Folder(folder)
    problem = files.problem(root, source(root, archive.name))
    if problem:
        raise MissingDataError(problem)
    return Archive(archive, instruction)


def decode(pictures: Pictures, names: Sequence[str], crop: Crop) -> Iterator[np.ndarray]:
    """Decode images to pixels `uint8 3 S S`.

    Raises:
        MissingDataError: an image cannot be decoded or is not 178 x 218.
    """
    return require_decoded(try_decode(pictures, names, crop))


def try_decode(pictures: Pictures, names: Sequence[str], crop: Crop) -> Iterator[np.ndarray | str]:
    """Decode each image to pixels `uint8 3 S S`, or to an error message, in threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            contents = [_read(pictures, name) for name in chunk]
            yield from pool.map(_decode, repeat(pictures.path), chunk, contents, repeat(crop))


def _read(pictures: Pictures, name: str) -> bytes | str:
    try:
        return pictures.read(name)
    except MissingDataError as error:
        return str(error)
    except OSError as error:
        return f"{pictures.path / name} cannot be read: {error.strerror or error}"


def _decode(path: Path, name: str, content: bytes | str, crop: Crop) -> np.ndarray | str:
    if isinstance(content, str):
        return content
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.size != ALIGNED:
                return f"expected {path / name} to be 178 x 218 pixels, got {image.width} x {image.height}"
            small = image.convert("RGB").crop(crop.edges).resize((crop.size, crop.size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError) as error:
        cause = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        return f"{path / name} cannot be decoded ({cause}); download it again from the release"
    return np.asarray(small).transpose(2, 0, 1)
