"""A smaller copy of CelebA under a protocol of its own: the 100 identities with the most images are private."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from ..core.config import Protocol, setting
from ..errors import MissingDataError
from ._faces import GMI_BOX, Faces, Split, by_identity
from ._split import held_out

CLASSES = 100
#: One image in five of each private identity, rounded up, is a test image.
TEST_SHARE = 5
#: Leaves a private identity four training images, a group of the identity sampler.
LEAST = 5


class CelebASubset(Faces):
    """Faces of 100 celebrities from whatever part of CelebA is there, 64 x 64.

    Private are the 100 identities with the most images, of equals those with the lower number; labels follow
    increasing identity number. Of an identity's n images ceil(n / 5), drawn by a fixed hash, are test images. Everyone
    else is public. All 100 labels are attacked, five draws each. Everything else is as in `celeba`.

    References:
        Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015,
        https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.

    Note:
        No paper uses this protocol. Which images it means depends on the copy at hand, so numbers compare only between
        records of the same copy.
    """

    family: ClassVar[str] = "celeba"
    attacked: int = setting(
        CLASSES,
        "labels 0 .. attacked-1 are attacked",
        smoke=5,
        quick=20,
        stages=("negatives", "evidence", "scores"),
        ge=1,
        le=CLASSES,
    )
    draws: int = setting(5, "reconstructions per label and trial", stages=("evidence", "scores"), ge=1)
    trials: int = setting(1, "independent attacks", stages=("evidence", "scores"), ge=1)

    @property
    def protocol(self) -> Protocol:
        """`celeba_subset/v1`."""
        return Protocol(
            name="celeba_subset",
            version=1,
            image=(3, 64, 64),
            classes=CLASSES,
            judge_classes=CLASSES,
            target_network="vgg16_bn",
            judge_network="facenet",
            second_judge_network="resnet50",
            pretrained=self.pretrained,
            sampler="identity",
            instances=4,
            augmentation="flip",
            face_box=GMI_BOX,
            attacked=self.attacked,
            group=60,
            draws=self.draws,
            trials=self.trials,
            reference=5,
        )

    def split(self, identities: Mapping[str, int]) -> Split:
        """The 100 identities with the most images, one image in five for the test."""
        groups = by_identity(identities)
        most = sorted(groups, key=lambda identity: (-len(groups[identity]), identity))[:CLASSES]
        private = sorted(identity for identity in most if len(groups[identity]) >= LEAST)
        if len(private) < CLASSES or len(groups) == CLASSES:
            raise MissingDataError(
                f"expected celeba_subset to have {CLASSES} identities with at least {LEAST} images and one more, "
                f"got {len(private)} and {len(groups) - len(private)}; use a larger copy of CelebA"
            )
        pairs = [
            held_out(groups[i], math.ceil(len(groups[i]) / TEST_SHARE), "celeba_subset/v1", "test", i) for i in private
        ]
        chosen = set(private)
        parts = {
            "private_train": tuple(name for train, _ in pairs for name in train),
            "private_test": tuple(name for _, test in pairs for name in test),
            "public": tuple(sorted(name for name, identity in identities.items() if identity not in chosen)),
        }
        return Split(parts, tuple(private))
