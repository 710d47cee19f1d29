"""The files of CelebA's release, and its two lists: identities and attributes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingDataError
from ..files.untrusted import shown
from . import files

FOLDER = "celeba"
IDENTITIES = "identity_CelebA.txt"
ATTRIBUTES = "list_attr_celeba.txt"
#: The same in Kaggle's copy, with commas.
ATTRIBUTES_CSV = "list_attr_celeba.csv"
IMAGES = "img_align_celeba"
#: Digits that a number in a list has at most.
_DIGITS = 9
#: Number of images of the release.
COUNT = 202_599
#: MD5 of the published files, as listed by torchvision.
PUBLISHED = {
    f"{IMAGES}.zip": "00d2c5bc6d35e252742224ab0c1e8fcb",
    IDENTITIES: "32bd1bd63d3c78cd57e08160ec5ed1e2",
    ATTRIBUTES: "75e246fa4810816ffd6ee81facbd244c",
}


def origin(root: Path, name: str) -> str:
    """Instruction to the user where to download a file."""
    kaggle = "; Kaggle's copy lacks it" if name == IDENTITIES else ""
    return (
        f"download {name} of CelebA in a browser (mmlab.ie.cuhk.edu.hk/projects/CelebA.html; the quota of its "
        f"Google Drive blocks scripts{kaggle}) and put it into {root / FOLDER}"
    )


def source(root: Path, name: str, md5: str | None = None) -> files.DownloadSource:
    """Describe one of the release's files."""
    return files.DownloadSource(f"{FOLDER}/{name}", origin(root, name), md5=md5)


def attribute_file(root: Path) -> str:
    """Return the name of the file of attributes: Kaggle's if there is no other, or that of the release."""
    has = [name for name in (ATTRIBUTES, ATTRIBUTES_CSV) if (root / FOLDER / name).exists()]
    return has[0] if has else ATTRIBUTES


def read_identities(path: Path, content: bytes) -> dict[str, int]:
    """Read the identity number of each image, in the order of the file.

    Raises:
        MissingDataError: a line is not `NAME NUMBER`, or a name is repeated.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(path, content), 1):
        words = line.split()
        if len(words) != 2 or not words[1].isdecimal() or len(words[1]) > _DIGITS:
            raise MissingDataError(f"expected line {number} of {path} to be 'IMAGE IDENTITY', got {line[:60]!r}")
        found[words[0]] = int(words[1])
        if len(found) != number:
            raise MissingDataError(
                f"expected {path} to list each image once, got {shown(words[0])} again in line {number}"
            )
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

    def require(self, images: Sequence[str]) -> None:
        """Require a row for each image.

        Raises:
            MissingDataError: an image has none.
        """
        absent = [image for image in images if image not in self.rows]
        if absent:
            raise MissingDataError(
                f"{self.path} lists {len(self.rows):,} images and lacks {len(absent):,} of {len(images):,}, such as "
                f"{absent[0]}; download the attributes and the identities from the same release"
            )

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
    """Read the attributes of all images, in the form of the release or with commas, as in Kaggle's copy.

    Raises:
        MissingDataError: the first line states neither the number of rows that follow nor the columns.
    """
    lines = _lines(path, content)
    if lines and "," in lines[0]:
        head, *lines = (line.replace(",", " ") for line in lines)
        names = head.split()[1:]
    elif len(lines) < 2 or not lines[0].strip().isdecimal() or len(lines[0].strip()) > _DIGITS:
        raise MissingDataError(f"expected {path} to begin with the number of images and the attributes' names")
    else:
        count, names = int(lines[0]), lines[1].split()
        lines = lines[2:]
        if len(lines) != count:
            raise MissingDataError(
                f"{path} is truncated: its first line says {count:,} images, but it lists {len(lines):,}"
            )
    rows = {name: values for name, _, values in (line.partition(" ") for line in lines)}
    return Attributes(path, tuple(names), rows)


def _lines(path: Path, content: bytes) -> list[str]:
    try:
        return [line for line in content.decode("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise MissingDataError(
            f"expected {path} to be a text file of CelebA, got other bytes; download it again"
        ) from None
