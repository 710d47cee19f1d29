"""Protocol of MNIST, CIFAR-10 and the digits: labels 0-4 are private, 5-9 public, and the judge knows all ten."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..contracts import Dataset
from ..core.config import Part, Protocol, Recipe
from ..core.evidence import Images
from . import _fields

Partition = Literal["train", "test"]
#: Labels 0 .. 4 are private, and all of them are attacked.
PRIVATE = 5
SIZE = 32
#: Recipe of every target of handwritten digits.
DIGIT_TARGET = Recipe(optimizer="adam", learning_rate=1e-3, batch_size=64, epochs=20)
#: Recipes of the judges of handwritten digits.
DIGIT_JUDGE = Recipe(learning_rate=1e-2, momentum=0.5, nesterov=True, epochs=30, milestones=(25,), gamma=0.2)
SECOND_DIGIT_JUDGE = Recipe(optimizer="adam", learning_rate=3e-3, epochs=30, milestones=(25,), gamma=0.2)


@dataclass(frozen=True)
class Labelled:
    """Images as published, `uint8 N C H W`, with labels `int64 N` in 0 .. 9."""

    pixels: Tensor
    labels: Tensor

    def where(self, kept: Tensor) -> Labelled:
        """Select the images for which the mask `bool N` is true."""
        return Labelled(self.pixels[kept], self.labels[kept])


class TenClasses(Dataset):
    """Private labels 0-4, public labels 5-9, ten-class judge, as in BiDO's released lists.

    Private training and test images come from the training and test partition. Public images come from both, the
    training partition first, each in the order of the files. Public images carry no labels.

    References:
        Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483, and its released lists of images.
    """

    draws: int = _fields.draws(100, smoke=5)
    trials: int = _fields.trials(5, smoke=1, quick=2)
    attacked: int = _fields.attacked(PRIVATE, PRIVATE)

    @abstractmethod
    def read(self, partition: Partition, root: Path) -> Labelled:
        """Read one partition of the original data set, all ten labels, in the order of its files."""

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

    def _make_protocol(self, name: str, **changes: Any) -> Protocol:
        """Version 2 of the protocol `name`: BiDO's for handwritten digits, with `changes`."""
        digits = {
            "image": (1, SIZE, SIZE),
            "target_network": "mcnn",
            "judge_network": "scnn",
            "second_judge_network": "lenet5",
        }
        return Protocol(
            name=name,
            version=2,
            classes=PRIVATE,
            judge_classes=10,
            attacked=self.attacked,
            group=PRIVATE,
            draws=self.draws,
            trials=self.trials,
            reference=100,
            **{**digits, **changes},
        )


def enlarge(pixels: Tensor) -> Tensor:
    """Resize `uint8 N C H W` to 32 x 32 bilinearly, bit for bit as Pillow's `resize` does.

    Note:
        The released code of BiDO calls Pillow for each image; PyTorch's antialiased resizing of bytes uses Pillow's
        filter and arithmetic on all images at once.
    """
    if pixels.shape[-2:] == (SIZE, SIZE):
        return pixels
    return functional.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", antialias=True)
