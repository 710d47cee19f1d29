"""What MNIST, CIFAR-10 and the digits share: labels 0-4 are private, 5-9 public, the judge knows all ten."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..contracts import Dataset
from ..core.config import Part, setting
from ..core.evidence import Images

Partition = Literal["train", "test"]
#: Labels 0 .. 4 are private, and all of them are attacked.
PRIVATE = 5
SIZE = 32


@dataclass(frozen=True)
class Labelled:
    """Images as published, `uint8 N C H W`, with labels `int64 N` in 0 .. 9."""

    pixels: Tensor
    labels: Tensor

    def where(self, kept: Tensor) -> Labelled:
        """The images that the mask `bool N` keeps."""
        return Labelled(self.pixels[kept], self.labels[kept])


class TenClasses(Dataset):
    """Private labels 0-4, public labels 5-9, ten-class judge, as BiDO's released lists have it.

    Private training and test images come from the training and test partition; the public images from both, training
    partition first, each in the order of the files. Public images carry no labels.

    References:
        Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483, and its released lists of images.
    """

    draws: int = setting(100, "reconstructions per label and trial", smoke=5, stages=("evidence", "scores"), ge=1)
    trials: int = setting(5, "independent attacks", smoke=1, quick=2, stages=("evidence", "scores"), ge=1)
    attacked: int = setting(
        PRIVATE, "labels 0 .. attacked-1 are attacked", stages=("negatives", "evidence", "scores"), ge=1, le=PRIVATE
    )

    @abstractmethod
    def read(self, partition: Partition, root: Path) -> Labelled:
        """One partition of the original data set, all ten labels, in the order of its files."""

    def load(self, part: Part, root: Path) -> Images:
        """Read one part; `judge_train` and `judge_test` are the whole partitions."""
        if part == "public":
            train, test = self.read("train", root), self.read("test", root)
            both = [data.where(data.labels >= PRIVATE).pixels for data in (train, test)]
            return Images(enlarge(torch.cat(both)))
        data = self.read("train" if part.endswith("_train") else "test", root)
        if part.startswith("private_"):
            data = data.where(data.labels < PRIVATE)
        return Images(enlarge(data.pixels), data.labels)


def enlarge(pixels: Tensor) -> Tensor:
    """Resize `uint8 N C H W` to 32 x 32, bilinear, bit for bit as Pillow's `resize` does.

    Note:
        The released code of BiDO calls Pillow for each image; PyTorch's antialiased resizing of bytes uses Pillow's
        filter and arithmetic on all images at once.
    """
    if pixels.shape[-2:] == (SIZE, SIZE):
        return pixels
    return functional.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", antialias=True)
