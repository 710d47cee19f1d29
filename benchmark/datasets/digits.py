"""Digits, the default data set: scikit-learn's 1,797 scans of handwritten digits, under MNIST's protocol."""

import math
from pathlib import Path
from typing import ClassVar

import torch

from ..core.config import Protocol, Recipe
from ..core.split import held_out
from . import _fields
from ._ten_classes import DIGIT_JUDGE, DIGIT_TARGET, SECOND_DIGIT_JUDGE, Labelled, Partition, TenClasses

#: Grey levels of a scan are 0 .. 16.
LEVELS = 16
#: One image in five of each digit is a test image.
TEST_SHARE = 5


class Digits(TenClasses):
    """Handwritten digits of scikit-learn, 8 x 8 enlarged to 32 x 32; needs no download.

    Labels 0-4 are private, 5-9 public. Grey levels 0 .. 16 become round(255 v / 16). Of the n scans of each digit
    ceil(n / 5), drawn by a fixed hash, are the test partition; the rest is the training partition, which leaves 718
    private training and 183 private test images, and 896 public ones.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
        https://archive.ics.uci.edu/dataset/80. scikit-learn ships its test partition.

    Note:
        No paper uses these scans. Everything else is MNIST's protocol and MNIST's published recipes.

    Note:
        The papers have one judge. The second judge, `lenet5`, has another architecture than target and judge and is
        trained with Adam.
    """

    family: ClassVar[str] = "mnist"
    target: Recipe = _fields.target(DIGIT_TARGET, max_steps=100)
    judge: Recipe = _fields.judge(DIGIT_JUDGE, max_steps=120)
    second_judge: Recipe = _fields.second_judge(SECOND_DIGIT_JUDGE, max_steps=200)

    @property
    def protocol(self) -> Protocol:
        """`digits/v2`."""
        return self._make_protocol("digits")

    def read(self, partition: Partition, root: Path) -> Labelled:
        """Read one partition, 8 x 8, in scikit-learn's order; `root` is not used."""
        from sklearn.datasets import load_digits

        scans = load_digits()
        labels = torch.from_numpy(scans.target).long()
        levels = torch.from_numpy(scans.images).unsqueeze(1)
        pixels = (levels * 255 / LEVELS).round().to(torch.uint8)
        chosen = torch.tensor(_partition(labels.tolist(), partition))
        return Labelled(pixels[chosen], labels[chosen])


def _partition(labels: list[int], partition: Partition) -> list[int]:
    """Return the indices of the scans of one partition, ascending."""
    chosen: list[int] = []
    for digit in sorted(set(labels)):
        scans = [str(index) for index, label in enumerate(labels) if label == digit]
        train, test = held_out(scans, math.ceil(len(scans) / TEST_SHARE), "digits/v1", digit)
        chosen += map(int, train if partition == "train" else test)
    return sorted(chosen)
