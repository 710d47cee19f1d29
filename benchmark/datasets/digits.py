"""The embedded default: scikit-learn's 1,797 scans of handwritten digits, under MNIST's protocol."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch

from ..core.config import Protocol, Recipe, setting
from ._split import held_out
from ._ten_classes import Labelled, Partition, TenClasses

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
        No paper uses these scans: everything else is MNIST's protocol and MNIST's published recipes.

    Note:
        The papers have one judge. The second, `lenet5`, is of another design than target and judge, trained by Adam.
    """

    family: ClassVar[str] = "mnist"
    judge: Recipe = setting(
        Recipe(learning_rate=1e-2, momentum=0.5, nesterov=True, epochs=30, milestones=(25,), gamma=0.2),
        "training of the judge",
        quick={"max_steps": 120},
        stages=("judge",),
    )
    second_judge: Recipe = setting(
        Recipe(optimizer="adam", learning_rate=3e-3, epochs=30, milestones=(25,), gamma=0.2),
        "training of the second judge",
        quick={"max_steps": 200},
        stages=("second",),
    )

    @property
    def protocol(self) -> Protocol:
        """`digits/v1`."""
        return Protocol(
            name="digits",
            version=1,
            image=(1, 32, 32),
            classes=5,
            judge_classes=10,
            target_network="mcnn",
            judge_network="scnn",
            second_judge_network="lenet5",
            attacked=self.attacked,
            group=5,
            draws=self.draws,
            trials=self.trials,
            reference=100,
        )

    def read(self, partition: Partition, root: Path) -> Labelled:
        """One partition, 8 x 8, in scikit-learn's order; `root` is not read."""
        from sklearn.datasets import load_digits

        scans = load_digits()
        labels = torch.from_numpy(scans.target).long()
        levels = torch.from_numpy(scans.images).unsqueeze(1)
        pixels = (levels * 255 / LEVELS).round().to(torch.uint8)
        chosen = torch.tensor(_partition(labels.tolist(), partition))
        return Labelled(pixels[chosen], labels[chosen])


def _partition(labels: list[int], partition: Partition) -> list[int]:
    """Indices of the scans of one partition, ascending."""
    chosen: list[int] = []
    for digit in sorted(set(labels)):
        scans = [str(index) for index, label in enumerate(labels) if label == digit]
        train, test = held_out(scans, math.ceil(len(scans) / TEST_SHARE), "digits/v1", digit)
        chosen += map(int, train if partition == "train" else test)
    return sorted(chosen)
