"""CIFAR-10 in torchvision's layout, `cifar-10-batches-py/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..core.config import Protocol, Recipe, setting
from . import files
from ._download import download
from ._ten_classes import Labelled, Partition, TenClasses
from ._unpickle import unpickle

FOLDER = "cifar-10-batches-py"
#: MD5 of the extracted files, as torchvision publishes them, and sizes.
BATCHES: dict[Partition, dict[str, tuple[int, str]]] = {
    "train": {
        "data_batch_1": (31_035_704, "c99cafc152244af753f735de768cd75f"),
        "data_batch_2": (31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3": (31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4": (31_035_696, "634d18415352ddfa80567beed471001a"),
        "data_batch_5": (31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    },
    "test": {"test_batch": (31_035_526, "40351d587109b95175f43aff81a1287e")},
}


class CIFAR10(TenClasses):
    """Small colour photographs of ten kinds of things, 32 x 32.

    Labels 0-4 are private (25,000 training and 5,000 test images, each from its own partition), the 30,000 images of
    5-9 in both partitions are public. Training images are padded by 4, cropped at random and mirrored.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
        https://www.cs.toronto.edu/~kriz/cifar.html.

    Note:
        The released code of BiDO stretches the contrast of each image to 0 .. 255 when it writes PNG files; we keep the
        published pixels, so accuracies and distances differ slightly from an exact replication.

    Note:
        How the published VGG19-BN judge (93.37 %) was trained is not known; we chose SGD with step size 0.01, Nesterov
        momentum 0.9, weight decay 5e-4 and 30 epochs, the step size divided by 5 after 15 and 25.

    Note:
        The papers have one judge. Target and judge are both VGGs; the second is a ResNet-34, which has skip connections
        and costs less than the judge. It starts from ImageNet's weights as they do, and is trained by Adam on images
        that are cropped and mirrored; the judge's are mirrored only.

    Note:
        With `pretrained=false` target and judges start from random weights, for machines that cannot fetch ImageNet's;
        the papers always start from ImageNet.
    """

    pretrained: bool = setting(
        True,
        "start target and judges from ImageNet's weights; false trains from scratch",
        stages=("judge", "second", "target"),
    )
    judge: Recipe = setting(
        Recipe(learning_rate=1e-2, nesterov=True, weight_decay=5e-4, epochs=30, milestones=(15, 25), gamma=0.2),
        "training of the judge",
        quick={"max_steps": 100, "batch_size": 32},
        stages=("judge",),
    )
    second_judge: Recipe = setting(
        Recipe(optimizer="adam", learning_rate=5e-4, epochs=30, milestones=(20, 27), gamma=0.2),
        "training of the second judge",
        quick={"max_steps": 100, "batch_size": 32},
        stages=("second",),
    )

    @property
    def protocol(self) -> Protocol:
        """`cifar10/v1`."""
        return Protocol(
            name="cifar10",
            version=1,
            image=(3, 32, 32),
            classes=5,
            judge_classes=10,
            target_network="vgg16_bn",
            judge_network="vgg19_bn",
            second_judge_network="resnet34",
            pretrained=self.pretrained,
            augmentation="crop_flip",
            attacked=self.attacked,
            group=5,
            draws=self.draws,
            trials=self.trials,
            reference=100,
        )

    def read(self, partition: Partition, root: Path) -> Labelled:
        """One partition, `uint8 N 3 32 32`, in the order of the files."""
        batches = [unpickle(files.read(root, source)) for source in _sources(root, partition)]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = [label for batch in batches for label in batch["labels"]]
        return Labelled(torch.from_numpy(pixels), torch.tensor(labels))

    def check(self, root: Path) -> list[str]:
        """What is missing or damaged among the six files."""
        sources = [*_sources(root, "train"), *_sources(root, "test")]
        return [sentence for source in sources if (sentence := files.problem(root, source))]

    def prepare(self, root: Path) -> None:
        """Download and extract what is missing, through torchvision."""
        if self.check(root):
            order = f"download cifar-10-python.tar.gz elsewhere, put it into {root} and repeat this command"
            download("CIFAR-10", root, _fetch, order)
        super().prepare(root)


def _fetch(root: Path) -> None:
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    published = datasets.CIFAR10
    download_and_extract_archive(published.url, str(root), filename=published.filename, md5=published.tgz_md5)


def _sources(root: Path, partition: Partition) -> list[files.DownloadSource]:
    origin = (
        "run `privbench data prepare cifar10`, or extract cifar-10-python.tar.gz "
        f"(www.cs.toronto.edu/~kriz/cifar.html) in {root}"
    )
    return [files.DownloadSource(f"{FOLDER}/{name}", origin, *facts) for name, facts in BATCHES[partition].items()]
