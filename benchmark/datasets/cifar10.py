"""CIFAR-10 in torchvision's layout, `cifar-10-batches-py/`."""

from pathlib import Path

import numpy as np
import torch

from ..core.config import Protocol, Recipe, setting
from . import _fields, files
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

    Labels 0-4 are private: 25,000 training and 5,000 test images, each from its own partition. The 30,000 images of
    5-9 in both partitions are public. Training images are padded by 4, cropped at random and mirrored.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
        https://www.cs.toronto.edu/~kriz/cifar.html.

    Note:
        The released code of BiDO stretches the contrast of each image to 0 .. 255 when it writes PNG files; we keep the
        published pixels, so accuracies and distances differ slightly from an exact replication.

    Note:
        The training of the published VGG19-BN judge (93.37 %) is not documented. We chose SGD with learning rate 0.01,
        Nesterov momentum 0.9, weight decay 5e-4 and 30 epochs; the learning rate is divided by 5 after 15 and 25.

    Note:
        The papers have one judge. Target and judge are both VGGs from ImageNet weights. The second judge is a
        ResNet-34, which has skip connections and costs less than the judge. It starts from random weights, so that it
        shares no pretraining with the target. It is trained with Adam on cropped and mirrored images, for twice as many
        epochs as the judge, whose images are only mirrored.

    Note:
        With `pretrained=false` target and judge start from random weights, for machines that cannot download ImageNet
        weights. The papers always start from ImageNet weights.
    """

    pretrained: bool = setting(
        True,
        "start target and judge from ImageNet weights; false trains from scratch",
        stages=("judge", "target"),
    )
    target: Recipe = _fields.target(
        Recipe(optimizer="adam", learning_rate=1e-4, epochs=30, milestones=(25,), gamma=0.5),
        max_steps=100,
        batch_size=32,
    )
    judge: Recipe = _fields.judge(
        Recipe(learning_rate=1e-2, nesterov=True, weight_decay=5e-4, epochs=30, milestones=(15, 25), gamma=0.2),
        max_steps=100,
        batch_size=32,
    )
    second_judge: Recipe = _fields.second_judge(
        Recipe(optimizer="adam", learning_rate=5e-4, epochs=60, milestones=(40, 54), gamma=0.2),
        max_steps=100,
        batch_size=32,
    )

    @property
    def protocol(self) -> Protocol:
        """`cifar10/v2`."""
        return self._make_protocol(
            "cifar10",
            image=(3, 32, 32),
            target_network="vgg16_bn",
            judge_network="vgg19_bn",
            second_judge_network="resnet34",
            pretrained=self.pretrained,
            second_judge_pretrained=False,
            augmentation="crop_flip",
        )

    def read(self, partition: Partition, root: Path) -> Labelled:
        """Read one partition, `uint8 N 3 32 32`, in the order of the files."""
        batches = [unpickle(files.read(root, source)) for source in _sources(root, partition)]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = [label for batch in batches for label in batch["labels"]]
        return Labelled(torch.from_numpy(pixels), torch.tensor(labels))

    def check(self, root: Path) -> list[str]:
        """List which of the six files are missing or damaged, one error message each."""
        sources = [*_sources(root, "train"), *_sources(root, "test")]
        return [problem for source in sources if (problem := files.problem(root, source))]

    def prepare(self, root: Path) -> None:
        """Download and extract the archive through torchvision, unless all files are intact."""
        if self.check(root):
            by_hand = f"download cifar-10-python.tar.gz elsewhere, put it into {root} and repeat this command"
            download("CIFAR-10", root, _fetch, by_hand)
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
