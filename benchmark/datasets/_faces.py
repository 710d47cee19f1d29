"""Base class of the CelebA data sets: annotations, split, and decoded images that are cached between runs."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..contracts import Dataset
from ..core.config import Part, Recipe, setting
from ..core.evidence import Images
from ..errors import MissingDataError
from . import _celeba_files as release
from . import _fields, files
from ._decoded import cache_key, decoded, decoded_path

#: Increase when the decoding or the format of the cached file changes.
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
        attributes: of every listed image.
        pictures: the encoded images.
        split: names of the images of each part.
        key: identifies the split, the annotations and the content of the images.
    """

    identities: Mapping[str, int]
    attributes: release.Attributes
    pictures: release.Pictures
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
        attributes = copy.attributes.of(names, protocol.attributes)
        pixels = self._decoded(copy, name, root)
        identities = torch.tensor([copy.identities[image] for image in names])
        classes = copy.split.identities
        labels = _labels(identities, classes) if classes and part != "public" else None
        return Images(pixels, labels, identities, attributes)

    @property
    def crop(self) -> release.Crop:
        """The part of an aligned image that the protocol keeps."""
        protocol = self.protocol
        assert protocol.face_box is not None
        return release.Crop(protocol.face_box, protocol.image[-1])

    def fingerprint(self, root: Path) -> str:
        """Identify split, annotations and images, the latter by name and content."""
        return self._open(root).key

    def check(self, root: Path) -> list[str]:
        """List what is missing or damaged; decode every image of the split to find out."""
        problems = self._problems(root)
        if problems:
            return problems
        try:
            copy = self._open(root)
            self._require_published(copy.pictures, root)
            names = [name for part in copy.split.parts.values() for name in part]
            copy.attributes.of(names, self.protocol.attributes)
        except MissingDataError as error:
            return [str(error)]
        attempts = release.try_decode(copy.pictures, names, self.crop)
        failed = [attempt for attempt in attempts if isinstance(attempt, str)]
        more = [f"{len(failed) - _SHOWN:,} more images cannot be decoded"] if len(failed) > _SHOWN else []
        return failed[:_SHOWN] + more

    def prepare(self, root: Path) -> None:
        """Decode the images, or explain which files to download; Google Drive's quota blocks automatic downloads."""
        problems = self._problems(root)
        if problems:
            raise MissingDataError(
                f"{self.protocol.name} needs {release.IMAGES}.zip (or a folder {release.IMAGES}), {release.IDENTITIES} "
                f"and {release.ATTRIBUTES} in {root / release.FOLDER}, and {problems[0]}"
            )
        self.load("private_test", root)

    def _problems(self, root: Path) -> list[str]:
        """List which of the three files are missing or of another type."""
        names = (release.IDENTITIES, release.ATTRIBUTES)
        found = [files.problem(root, release.source(root, name)) for name in names]
        try:
            release.find_pictures(root)
        except MissingDataError as error:
            found.append(str(error))
        return [problem for problem in found if problem]

    def _require_published(self, pictures: release.Pictures, root: Path) -> None:
        """Compare an archive with the published checksum."""
        md5 = self.published.get(pictures.path.name)
        problem = files.problem(root, release.source(root, pictures.path.name, md5)) if md5 else None
        if problem:
            raise MissingDataError(problem)

    def _decoded(self, copy: CelebACopy, part: str, root: Path) -> Tensor:
        crop = self.crop

        def decode() -> dict[str, Iterator[np.ndarray]]:
            self._require_published(copy.pictures, root)
            return {name: release.decode(copy.pictures, names, crop) for name, names in copy.split.parts.items()}

        shapes = {name: (len(names), 3, crop.size, crop.size) for name, names in copy.split.parts.items()}
        return decoded(decoded_path(self.protocol.name, copy.key), copy.key, part, shapes, decode)

    def _open(self, root: Path) -> CelebACopy:
        """Read the annotations and list the images; `check` and decoding verify the checksum of an archive.

        Raises:
            MissingDataError: a file is missing, or the files do not match each other.
        """
        # Split first: for a smaller copy of CelebA, its message is more useful than "wrong checksum".
        listing = files.read(root, release.source(root, release.IDENTITIES))
        identities, split = _listed(self, root / release.FOLDER / release.IDENTITIES, listing)
        for name in (release.IDENTITIES, release.ATTRIBUTES):
            annotation = files.read(root, release.source(root, name, self.published.get(name)))
        attributes = release.read_attributes(root / release.FOLDER / release.ATTRIBUTES, annotation)
        pictures = release.find_pictures(root)
        _require_all(identities, pictures.names(), pictures.path, release.origin(root, f"{release.IMAGES}.zip"))
        return CelebACopy(identities, attributes, pictures, split, self._key(split, listing, annotation, pictures))

    def _key(self, split: Split, listing: bytes, annotation: bytes, pictures: release.Pictures) -> str:
        found = pictures.identify(name for names in split.parts.values() for name in names)
        content = {
            "format": _FORMAT,
            "protocol": self.protocol.id,
            "crop": [*self.crop.edges, self.crop.size],
            "annotations": [files.digest(listing), files.digest(annotation)],
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


def _require_all(listed: Mapping[str, int], present: Collection[str], path: Path, origin: str) -> None:
    absent = [name for name in listed if name not in present]
    if absent:
        raise MissingDataError(
            f"{path} lacks {len(absent):,} of the {len(listed):,} images that {release.IDENTITIES} lists, "
            f"such as {absent[0]}: {origin}"
        )
