"""Base class of the CelebA data sets: annotations, split, and decoded images that are cached between runs."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..contracts import Dataset
from ..core.config import Part, Recipe, setting
from ..core.evidence import Images
from ..errors import MissingDataError
from ..files import images as reader
from . import _celeba_files as release
from . import _fields, files
from ._celeba_pictures import Crop, Pictures, decode, find_pictures, try_decode
from ._decoded import cache_key, decoded, decoded_path

#: Increase when crop, resizing or the format of the cached file changes; the reader of images has its own version.
_FORMAT = 2
#: Undecodable images that `check` lists at most.
_SHOWN = 10


@dataclass(frozen=True)
class Split:
    """Names of the images of each part.

    Args:
        parts: names of `private_train`, `private_test` and `public` images.
        identities: of the private classes, in the order of the labels; empty where identities are not classes.
    """

    parts: Mapping[str, tuple[str, ...]]
    identities: tuple[int, ...] = ()


@dataclass(frozen=True)
class CelebACopy:
    """A copy of CelebA's release on this machine, with its annotations read.

    Args:
        identities: of every listed image.
        attributes: of every listed image; `None` where only identities are needed and there is no file of them.
        pictures: the encoded images.
        split: names of the images of each part.
        key: identifies the split, the annotations and the content of the images.
    """

    identities: Mapping[str, int]
    attributes: release.Attributes | None
    pictures: Pictures[Any]
    split: Split
    key: str


class Faces(Dataset):
    """Faces, cropped to the protocol's box of the aligned frame and resized to the protocol's image.

    Images are decoded once and cached in `PRIVBENCH_CACHE` (by default the user's cache folder) under a key of the
    split, the crop, the annotations and the names and contents of the images. A cached file that does not match its
    checksum is recomputed.
    """

    #: MD5 of the published files, where the copy must be the published one.
    published: ClassVar[Mapping[str, str]] = {}
    pretrained: bool = setting(
        True,
        "start target and judge from published weights; false trains from scratch",
        stages=("judge", "target"),
    )
    judge: Recipe = _fields.judge(
        Recipe(learning_rate=1e-2, momentum=0.9, weight_decay=1e-4, epochs=30), max_steps=40, batch_size=16
    )
    second_judge: Recipe = _fields.second_judge(
        Recipe(optimizer="adam", learning_rate=3e-4, epochs=60, milestones=(40, 54), gamma=0.2),
        max_steps=40,
        batch_size=16,
    )
    negatives: int = setting(5, "calibrated negatives per attacked label", smoke=2, stages=("negatives",), ge=1)

    @abstractmethod
    def split(self, identities: Mapping[str, int]) -> Split:
        """Choose private and public images from all listed ones.

        Raises:
            MissingDataError: the list is too short for this protocol.
        """

    def load(self, part: Part, root: Path) -> Images:
        """Read one part; the judge is trained on the private training images, as in the papers."""
        copy, protocol = self._open(root), self.protocol
        name = part.replace("judge_", "private_")
        names = copy.split.parts[name]
        attributes = copy.attributes.of(names, protocol.attributes) if copy.attributes else None
        pixels = self._decoded(copy, name, root)
        identities = torch.tensor([copy.identities[image] for image in names])
        classes = copy.split.identities
        labels = _labels(identities, classes) if classes and part != "public" else None
        return Images(pixels, labels, identities, attributes)

    @property
    def crop(self) -> Crop:
        """The part of an aligned image that the protocol keeps."""
        protocol = self.protocol
        assert protocol.face_box is not None
        return Crop(protocol.face_box, protocol.image[-1])

    def fingerprint(self, root: Path) -> str:
        """Identify split, annotations and images, the latter by name and content.

        Until the images are decoded, some are looked at, so that a plan says what is wrong with a whole copy or with a
        file that was cut off; `check` and decoding look at all of them.
        """
        copy = self._open(root)
        if not decoded_path(self.protocol.name, copy.key).exists():
            names = [name for part in copy.split.parts.values() for name in part]
            first = [part[0] for part in copy.split.parts.values() if part]
            for _ in decode(copy.pictures, [*first, *copy.pictures.suspects(names)], self.crop):
                pass
        return copy.key

    def check(self, root: Path) -> list[str]:
        """List what is missing or damaged; decode every image of the split to find out."""
        problems = self._problems(root)
        if problems:
            return problems
        try:
            copy = self._open(root)
            self._require_published(copy.pictures, root)
            names = [name for part in copy.split.parts.values() for name in part]
            if copy.attributes:
                copy.attributes.of(names, self.protocol.attributes)
        except MissingDataError as error:
            return [str(error)]
        attempts = try_decode(copy.pictures, names, self.crop)
        failed = [attempt for attempt in attempts if isinstance(attempt, str)]
        if len(failed) == len(names):
            return [f"none of {len(names):,} images can be used, such as this one: {failed[0]}"]
        more = [f"{len(failed) - _SHOWN:,} more images cannot be decoded"] if len(failed) > _SHOWN else []
        return failed[:_SHOWN] + more

    def prepare(self, root: Path) -> None:
        """Decode the images, or explain which files to download; Google Drive's quota blocks automatic downloads."""
        problems = self._problems(root)
        if problems:
            lists = " and ".join([release.IDENTITIES, *([release.ATTRIBUTES] if self.protocol.attributes else [])])
            raise MissingDataError(
                f"{self.protocol.name} needs {release.IMAGES}.zip (or a folder {release.IMAGES}) and {lists} in "
                f"{root / release.FOLDER}, and {problems[0]}"
            )
        self.load("private_test", root)

    def _problems(self, root: Path) -> list[str]:
        """List which of the files are missing or of another type."""
        found = [
            files.problem(root, release.source(root, name))
            for name in (release.IDENTITIES, self._attribute_file(root))
            if name
        ]
        try:
            find_pictures(root)
        except MissingDataError as error:
            found.append(str(error))
        return [problem for problem in found if problem]

    def _attribute_file(self, root: Path) -> str | None:
        """Return the name of the file of attributes; `None` if there is none and only identities are needed."""
        name = release.attribute_file(root)
        return name if self.protocol.attributes or (root / release.FOLDER / name).exists() else None

    def _require_published(self, pictures: Pictures[Any], root: Path) -> None:
        """Compare an archive with the published checksum."""
        md5 = self.published.get(pictures.path.name)
        problem = files.problem(root, release.source(root, pictures.path.name, md5)) if md5 else None
        if problem:
            raise MissingDataError(problem)

    def _decoded(self, copy: CelebACopy, part: str, root: Path) -> Tensor:
        crop = self.crop

        def begin() -> dict[str, Iterator[np.ndarray]]:
            self._require_published(copy.pictures, root)
            return {name: decode(copy.pictures, names, crop) for name, names in copy.split.parts.items()}

        shapes = {name: (len(names), 3, crop.size, crop.size) for name, names in copy.split.parts.items()}
        return decoded(decoded_path(self.protocol.name, copy.key), copy.key, part, shapes, begin)

    def _open(self, root: Path) -> CelebACopy:
        """Read the annotations and list the images; `check` and decoding verify the checksum of an archive.

        Raises:
            MissingDataError: a file is missing, or the files do not match each other.
        """
        # Split first: for a smaller copy of CelebA, its message is more useful than "wrong checksum".
        listing = files.read_text(root, release.source(root, release.IDENTITIES))
        identities, split = _listed(self, root / release.FOLDER / release.IDENTITIES, listing)
        files.read_text(root, release.source(root, release.IDENTITIES, self.published.get(release.IDENTITIES)))
        name, annotation, attributes = self._attribute_file(root), None, None
        if name:
            annotation = files.read_text(root, release.source(root, name, self.published.get(name)))
            attributes = release.read_attributes(root / release.FOLDER / name, annotation)
            attributes.require([name for names in split.parts.values() for name in names])
        pictures = find_pictures(root)
        _require_all(identities, pictures, release.origin(root, f"{release.IMAGES}.zip"))
        return CelebACopy(identities, attributes, pictures, split, self._key(split, listing, annotation, pictures))

    def _key(self, split: Split, listing: bytes, annotation: bytes | None, pictures: Pictures[Any]) -> str:
        found = pictures.identify(name for names in split.parts.values() for name in names)
        content = {
            "format": _FORMAT,
            "reader": reader.VERSION,
            "protocol": self.protocol.id,
            "crop": [*self.crop.edges, self.crop.size],
            "annotations": [files.digest(listing), None if annotation is None else files.digest(annotation)],
            "images": {part: [[name, found[name]] for name in names] for part, names in split.parts.items()},
        }
        return cache_key(content)


@lru_cache(maxsize=4)
def _listed(dataset: Faces, path: Path, listing: bytes) -> tuple[Mapping[str, int], Split]:
    """Read identities and split; cached because each part of the data set needs them."""
    identities = release.read_identities(path, listing)
    return identities, dataset.split(identities)


def require_whole(name: str, identities: Mapping[str, int], smaller: str | None) -> None:
    """Reject a copy of CelebA that does not list exactly the published number of images.

    Args:
        name: of the data set.
        identities: as listed.
        smaller: the data set for smaller copies, or `None`.

    Raises:
        MissingDataError: the copy lists fewer or more images.
    """
    if len(identities) != release.COUNT:
        remedy = f"use the data set {smaller} for a smaller copy" if smaller else "download all of CelebA"
        raise MissingDataError(f"expected {name} to have {release.COUNT:,} images, got {len(identities):,}; {remedy}")


def _labels(identities: Tensor, classes: Sequence[int]) -> Tensor:
    label = {identity: index for index, identity in enumerate(classes)}
    return torch.tensor([label[identity] for identity in identities.tolist()])


def _require_all(listed: Mapping[str, int], pictures: Pictures[Any], origin: str) -> None:
    absent = [name for name in listed if pictures.file(name) is None]
    if absent:
        raise MissingDataError(
            f"{pictures.path} lacks {len(absent):,} of the {len(listed):,} images that {release.IDENTITIES} lists, "
            f"such as {absent[0]}: {origin}"
        )
