"""Protocol of CelebA data sets whose classes are identities: some people are private, the others public."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.config import Protocol, Recipe
from ..core.split import held_out
from . import _fields
from ._faces import Faces, Split

#: Columns 35 .. 142 and rows 55 .. 162, the centre: left, top, width, height in the aligned frame.
GMI_BOX = (35, 55, 108, 108)


class IdentityFaces(Faces):
    """Faces whose labels are identities; fields and protocol have the values of GMI, KED-MI and BiDO."""

    target: Recipe = _fields.target(
        Recipe(optimizer="adam", learning_rate=1e-4, epochs=50), max_steps=40, batch_size=32
    )
    attacked: int = _fields.attacked(300, 1000, smoke=5, quick=20)
    draws: int = _fields.draws(5)
    trials: int = _fields.trials(1)

    def _make_protocol(self, name: str, classes: int, **changes: Any) -> Protocol:
        """Version 2 of the protocol `name` with `classes` private identities: CelebA's, with `changes`."""
        celeba = {
            "target_network": "vgg16_bn",
            "second_judge_network": "resnet34",
            "pretrained": self.pretrained,
            "second_judge_pretrained": False,
            "sampler": "identity",
            "augmentation": "flip",
            "face_box": GMI_BOX,
        }
        return Protocol(
            name=name,
            version=2,
            image=(3, 64, 64),
            classes=classes,
            judge_classes=classes,
            judge_network="facenet",
            instances=4,
            attacked=self.attacked,
            group=60,
            draws=self.draws,
            trials=self.trials,
            reference=5,
            **{**celeba, **changes},
        )


def hold_out(
    groups: Mapping[int, Sequence[str]], private: Sequence[int], share: int, seed: str, public: Iterable[str]
) -> Split:
    """Split the images of each private identity: one in `share`, rounded up, is a test image.

    Args:
        groups: names of the images of each identity.
        private: identities, in the order of the labels.
        share: inverse of the fraction of test images.
        seed: of the hash that draws the test images.
        public: names of the public images.
    """
    pairs = [held_out(groups[i], math.ceil(len(groups[i]) / share), seed, "test", i) for i in private]
    parts = {
        "private_train": tuple(name for train, _ in pairs for name in train),
        "private_test": tuple(name for _, test in pairs for name in test),
        "public": tuple(sorted(public)),
    }
    return Split(parts, tuple(private))


def by_identity(identities: Mapping[str, int]) -> dict[int, list[str]]:
    """Group names of images by identity; identities and names in increasing order."""
    groups: dict[int, list[str]] = {}
    for name in sorted(identities):
        groups.setdefault(identities[name], []).append(name)
    return dict(sorted(groups.items()))
