"""What CelebA and smaller copies of it share: private identities as classes, decoded faces kept between runs."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from . import files
from ._decoded import decoded, decoded_path

#: Raised when decoding or the files that keep its result change.
_FORMAT = 1
#: Sentences that `check` prints at most.
_SHOWN = 10

#: Columns 35 .. 142 and rows 55 .. 162, the centre: left, top, width, height in the aligned frame.
GMI_BOX = (35, 55, 108, 108)
FACE_JUDGE = Recipe(learning_rate=1e-2, momentum=0.9, weight_decay=1e-4, epochs=30)
SECOND_FACE_JUDGE = Recipe(optimizer="adam", learning_rate=3e-4, epochs=30, milestones=(20, 27), gamma=0.2)


@dataclass(frozen=True)
class Split:
    """Which images play which part.

    Args:
        parts: names of `private_train`, `private_test` and `public` images.
        identities: of the private classes, in the order of the labels; none where identities are no classes.
    """

    parts: Mapping[str, tuple[str, ...]]
    identities: tuple[int, ...] = ()


@dataclass(frozen=True)
class Album:
    """A copy of the release that has been looked through.

    Args:
        identities: of every listed image.
        attributes: of every listed image.
        pictures: the encoded images.
        split: which images play which part.
        key: identifies the split, the annotations and the images' sizes.
    """

    identities: Mapping[str, int]
    attributes: release.Attributes
    pictures: release.Pictures
    split: Split
    key: str


class Faces(Dataset):
    """Faces, cropped to the protocol's box of the aligned frame and resized to the protocol's image.

    Images are decoded once and kept in `PRIVBENCH_CACHE` (else the user's cache folder) under a key of the split, the
    crop, the annotations and the images' names and sizes; a file that does not match its checksum is made again.
    """

    #: MD5 of the published files, where the copy must be the published one.
    published: ClassVar[Mapping[str, str]] = {}
    pretrained: bool = setting(
        True,
        "start target and judges from published weights; false trains from scratch",
        stages=("judge", "second", "target"),
    )
    judge: Recipe = setting(
        FACE_JUDGE, "training of the judge", quick={"max_steps": 40, "batch_size": 16}, stages=("judge",)
    )
    second_judge: Recipe = setting(
        SECOND_FACE_JUDGE,
        "training of the second judge",
        quick={"max_steps": 40, "batch_size": 16},
        stages=("second",),
    )
    negatives: int = setting(5, "calibrated negatives per attacked label", smoke=2, stages=("negatives",), ge=1)

    @abstractmethod
    def split(self, identities: Mapping[str, int]) -> Split:
        """Choose private and public images from all listed ones.

        Raises:
            MissingDataError: the list is too short for this protocol.
        """

    def load(self, part: Part, root: Path) -> Images:
        """Read one part; the judge learns from the private training images, as published."""
        album, protocol = self._album(root), self.protocol
        name = part.replace("judge_", "private_")
        names = album.split.parts[name]
        attributes = album.attributes.of(names, protocol.attributes)
        pixels = self._decoded(album, name, root)
        identities = torch.tensor([album.identities[image] for image in names])
        classes = album.split.identities
        labels = _labels(identities, classes) if classes and part != "public" else None
        return Images(pixels, labels, identities, attributes)

    @property
    def crop(self) -> release.Crop:
        """What is kept of an aligned image."""
        protocol = self.protocol
        assert protocol.face_box is not None
        return release.Crop(protocol.face_box, protocol.image[-1])

    def fingerprint(self, root: Path) -> str:
        """Identifies split, annotations and images, by the images' names and sizes."""
        return self._album(root).key

    def check(self, root: Path) -> list[str]:
        """What is missing or damaged; decodes every image of the split."""
        problems = self._problems(root)
        if problems:
            return problems
        try:
            album = self._album(root)
            self._require_published(album.pictures, root)
            names = [name for part in album.split.parts.values() for name in part]
            album.attributes.of(names, self.protocol.attributes)
        except MissingDataError as error:
            return [str(error)]
        wrong = [found for found in release.attempts(album.pictures, names, self.crop) if isinstance(found, str)]
        more = [f"{len(wrong) - _SHOWN:,} more images cannot be used"] if len(wrong) > _SHOWN else []
        return wrong[:_SHOWN] + more

    def prepare(self, root: Path) -> None:
        """Explain what to put where, or decode what is there; Google Drive's quota forbids a download."""
        problems = self._problems(root)
        if problems:
            raise MissingDataError(
                f"{self.protocol.name} needs {release.IMAGES}.zip (or a folder {release.IMAGES}), {release.IDENTITIES} "
                f"and {release.ATTRIBUTES} in {root / release.FOLDER}, and {problems[0]}"
            )
        self.load("private_test", root)

    def _problems(self, root: Path) -> list[str]:
        """Which of the three files are missing, or not of their kind."""
        names = (release.IDENTITIES, release.ATTRIBUTES)
        found = [files.problem(root, release.source(root, name)) for name in names]
        try:
            release.find_pictures(root)
        except MissingDataError as error:
            found.append(str(error))
        return [sentence for sentence in found if sentence]

    def _require_published(self, pictures: release.Pictures, root: Path) -> None:
        """Compare an archive with the published checksum."""
        md5 = self.published.get(pictures.path.name)
        sentence = files.problem(root, release.source(root, pictures.path.name, md5)) if md5 else None
        if sentence:
            raise MissingDataError(sentence)

    def _decoded(self, album: Album, part: str, root: Path) -> Tensor:
        crop = self.crop

        def decode() -> dict[str, Iterator[np.ndarray]]:
            self._require_published(album.pictures, root)
            return {name: release.decode(album.pictures, names, crop) for name, names in album.split.parts.items()}

        shapes = {name: (len(names), 3, crop.size, crop.size) for name, names in album.split.parts.items()}
        return decoded(decoded_path(self.protocol.name, album.key), album.key, part, shapes, decode)

    def _album(self, root: Path) -> Album:
        """Look through the files; the checksum of an archive is left to `check` and to decoding.

        Raises:
            MissingDataError: something is missing or does not fit together.
        """
        # The split counts first: a smaller copy of CelebA deserves a better word than "wrong checksum".
        listing = files.read(root, release.source(root, release.IDENTITIES))
        identities, split = _listed(self, root / release.FOLDER / release.IDENTITIES, listing)
        for name in (release.IDENTITIES, release.ATTRIBUTES):
            annotation = files.read(root, release.source(root, name, self.published.get(name)))
        attributes = release.read_attributes(root / release.FOLDER / release.ATTRIBUTES, annotation)
        pictures = release.find_pictures(root)
        sizes = pictures.sizes()
        _require_all(identities, sizes, pictures.path, release.origin(root, f"{release.IMAGES}.zip"))
        return Album(identities, attributes, pictures, split, self._key(split, listing, annotation, sizes))

    def _key(self, split: Split, listing: bytes, annotation: bytes, sizes: Mapping[str, int]) -> str:
        content = {
            "format": _FORMAT,
            "protocol": self.protocol.id,
            "crop": [*self.crop.edges, self.crop.size],
            "annotations": [files.digest(listing), files.digest(annotation)],
            "images": {part: [[name, sizes[name]] for name in names] for part, names in split.parts.items()},
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@lru_cache(maxsize=4)
def _listed(dataset: Faces, path: Path, listing: bytes) -> tuple[Mapping[str, int], Split]:
    """Identities and split, kept because each part of the data set needs them."""
    identities = release.read_identities(path, listing)
    return identities, dataset.split(identities)


def require_whole(name: str, identities: Mapping[str, int], smaller: str | None) -> None:
    """Refuse a copy of CelebA that does not list all images.

    Args:
        name: of the data set.
        identities: as listed.
        smaller: the data set for smaller copies, if there is one.

    Raises:
        MissingDataError: there are fewer or more.
    """
    if len(identities) != release.COUNT:
        remedy = f"use the data set {smaller} for a smaller copy" if smaller else "put the whole of CelebA there"
        raise MissingDataError(f"expected {name} to have {release.COUNT:,} images, got {len(identities):,}; {remedy}")


def by_identity(identities: Mapping[str, int]) -> dict[int, list[str]]:
    """Names of each identity's images, sorted; identities in increasing number."""
    found: dict[int, list[str]] = defaultdict(list)
    for name in sorted(identities):
        found[identities[name]].append(name)
    return dict(sorted(found.items()))


def _labels(identities: Tensor, classes: Sequence[int]) -> Tensor:
    label = {identity: index for index, identity in enumerate(classes)}
    return torch.tensor([label[identity] for identity in identities.tolist()])


def _require_all(listed: Mapping[str, int], sizes: Mapping[str, int], path: Path, order: str) -> None:
    absent = [name for name in listed if name not in sizes]
    if absent:
        raise MissingDataError(
            f"{path} lacks {len(absent):,} of the {len(listed):,} images that {release.IDENTITIES} lists, "
            f"such as {absent[0]}: {order}"
        )
