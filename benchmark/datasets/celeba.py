"""CelebA under the protocol of GMI, KED-MI and BiDO: 1000 private identities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..core.config import Protocol, setting
from ..errors import MissingDataError
from ._celeba_files import PUBLISHED
from ._faces import GMI_BOX, Faces, Split, by_identity, require_whole
from ._split import held_out, ranked

CLASSES = 1000
#: A private identity has at least so many images.
LEAST = 30
#: One image in ten of each private identity, rounded up, is a test image.
TEST_SHARE = 10
PUBLIC = 30_000
PUBLIC_PER_IDENTITY = 16


class CelebA(Faces):
    """Faces of 1000 celebrities, 64 x 64.

    Private are the first 1000 identities, in increasing number, of those with at least 30 images; labels follow that
    order. Of an identity's n images ceil(n / 10) are test images: 27,018 training and 3,009 test images in all.
    Public are 30,000 images of other identities, at most 16 of each. The 300 lowest labels are attacked, five draws
    each.

    References:
        Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015,
        https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.
        Zhang et al., "The Secret Revealer", CVPR 2020, https://arxiv.org/abs/1911.07135.

    Note:
        Identities and counts are those of the released lists of KED-MI and BiDO; which images of an identity are test
        images, and which 30,000 are public, was drawn there at random. We draw by a fixed hash of the file names, so
        both sets differ from the lists, and the public images come from more identities than their 6,453.

    Note:
        The released lists name PNG conversions of the images; we read the JPEG files of the release.

    Note:
        The papers have one judge. The second is a ResNet-50 that starts from ImageNet's weights: another design than
        VGG (target) and Inception (judge), which has not seen VGGFace2. It is trained by Adam on images that are
        cropped and mirrored; the judge's are mirrored only.

    Note:
        With `pretrained=false` target and judges start from random weights, for machines that cannot fetch published
        ones; the papers always start from ImageNet's and MS-Celeb-1M's.
    """

    published: ClassVar[Mapping[str, str]] = PUBLISHED
    attacked: int = setting(
        300,
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
        """`celeba/v1`."""
        return Protocol(
            name="celeba",
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
        """The published choice of identities, and our draw of images."""
        require_whole("celeba", identities, smaller="celeba_subset")
        return choose(identities)


def choose(identities: Mapping[str, int]) -> Split:
    """Apply the protocol to any number of images.

    Raises:
        MissingDataError: fewer than 1000 identities have 30 images.
    """
    groups = by_identity(identities)
    private = [identity for identity, names in groups.items() if len(names) >= LEAST][:CLASSES]
    if len(private) < CLASSES:
        raise MissingDataError(
            f"expected celeba to have {CLASSES} identities with at least {LEAST} images, got {len(private)}; "
            "use the data set celeba_subset for a smaller copy"
        )
    pairs = [held_out(groups[i], math.ceil(len(groups[i]) / TEST_SHARE), "celeba/v1", "test", i) for i in private]
    chosen = set(private)
    others = [name for name, identity in identities.items() if identity not in chosen]
    public = sorted(_few_of_each(ranked(others, "celeba/v1", "public"), identities)[:PUBLIC])
    parts = {
        "private_train": tuple(name for train, _ in pairs for name in train),
        "private_test": tuple(name for _, test in pairs for name in test),
        "public": tuple(public),
    }
    return Split(parts, tuple(private))


def _few_of_each(names: Sequence[str], identities: Mapping[str, int]) -> list[str]:
    """The first images of each identity, at most 16, in the order of `names`."""
    seen: Counter[int] = Counter()
    few = []
    for name in names:
        seen[identities[name]] += 1
        if seen[identities[name]] <= PUBLIC_PER_IDENTITY:
            few.append(name)
    return few
