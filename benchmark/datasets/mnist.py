"""MNIST in torchvision's layout, `MNIST/raw/*-ubyte` or the published `.gz` archives."""

import gzip
import io
import zlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from ..core.config import Protocol, Recipe
from ..errors import MissingDataError
from . import _fields, files
from ._download import download
from ._ten_classes import DIGIT_JUDGE, DIGIT_TARGET, SECOND_DIGIT_JUDGE, Labelled, Partition, TenClasses

FOLDER = "MNIST/raw"
#: Size and MD5 of the extracted files, from the archives whose checksums torchvision publishes.
CONTENTS = {
    "train-images-idx3-ubyte": (47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60_008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7_840_016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10_008, "27ae3e4e09519cfbb04c329615203637"),
}
_PREFIX: dict[Partition, str] = {"train": "train", "test": "t10k"}


class MNIST(TenClasses):
    """Handwritten digits, 28 x 28 enlarged to 32 x 32.

    Labels 0-4 are private: 30,596 training images of MNIST's training partition and 5,139 test images of its test
    partition. The 34,265 images of 5-9 in both partitions are public. The judge is trained on all 60,000 training
    images.

    References:
        LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86(11), 1998,
        http://yann.lecun.com/exdb/mnist/.

    Note:
        The released lists of BiDO hold only the five private digits, not the images that its ten-class judge was
        trained on. We train the judge on the whole training partition.

    Note:
        The papers have one judge. The second judge, `lenet5`, has another architecture than target and judge and is
        trained with Adam.

    Note:
        The released code stretches the contrast of each image to 0 .. 255 when it writes PNG files; we keep the
        published pixels.
    """

    target: Recipe = _fields.target(DIGIT_TARGET, max_steps=400)
    judge: Recipe = _fields.judge(DIGIT_JUDGE, max_steps=250)
    second_judge: Recipe = _fields.second_judge(SECOND_DIGIT_JUDGE, max_steps=400)

    @property
    def protocol(self) -> Protocol:
        """`mnist/v2`."""
        return self._make_protocol("mnist")

    def read(self, partition: Partition, root: Path) -> Labelled:
        """Read one partition, `uint8 N 1 28 28`, in the order of the files."""
        prefix = _PREFIX[partition]
        pixels = _idx(_content(root, f"{prefix}-images-idx3-ubyte"))
        labels = _idx(_content(root, f"{prefix}-labels-idx1-ubyte"))
        return Labelled(pixels.unsqueeze(1), labels.long())

    def check(self, root: Path) -> list[str]:
        """List which of the four files are missing or damaged, one error message each."""
        return [problem for name in CONTENTS if (problem := _problem(root, name))]

    def prepare(self, root: Path) -> None:
        """Download the missing or damaged files through torchvision."""
        damaged = [name for name in CONTENTS if _problem(root, name)]
        if damaged:
            archives = ", ".join(f"{name}.gz" for name in damaged)
            by_hand = f"download {archives} elsewhere and put them into {root / FOLDER}"
            download("MNIST", root, lambda folder: _fetch(folder / FOLDER, damaged), by_hand)
        super().prepare(root)


def _fetch(folder: Path, names: list[str]) -> None:
    """Download and extract files from the first mirror that has them."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    published = dict(datasets.MNIST.resources)
    for name in names:
        archive = f"{name}.gz"
        for last, mirror in enumerate(datasets.MNIST.mirrors, 1 - len(datasets.MNIST.mirrors)):
            try:
                download_and_extract_archive(f"{mirror}{archive}", str(folder), None, archive, published[archive])
                break
            except (URLError, RuntimeError):
                if last == 0:
                    raise


def _problem(root: Path, name: str) -> str | None:
    try:
        _content(root, name)
    except MissingDataError as error:
        return str(error)
    return None


def _content(root: Path, name: str) -> bytes:
    """Read and check one file, extracted or from its archive."""
    size, md5 = CONTENTS[name]
    origin = f"run `privbench data prepare mnist`, or download {name}.gz of MNIST and put it into {root / FOLDER}"
    archive = root / FOLDER / f"{name}.gz"
    if (root / FOLDER / name).exists() or not archive.exists():
        return files.read(root, files.DownloadSource(f"{FOLDER}/{name}", origin, size, md5))
    packed = files.read(root, files.DownloadSource(f"{FOLDER}/{name}.gz", origin))
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(files.MAX_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise MissingDataError(files.damaged(archive, "is truncated or not a gzip archive", origin)) from None
    if files.digest(content) != md5:
        raise MissingDataError(files.damaged(archive, f"does not contain MNIST's {name}", origin))
    return content


def _idx(content: bytes) -> Tensor:
    """Parse an IDX file of bytes: two zeros, type 8, number of dimensions, dimensions (big-endian), data."""
    assert content[:3] == b"\x00\x00\x08"
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content, ">i4", dimensions, 4).tolist()
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())
