"""A smaller copy of CelebA as a task of 40 binary attributes, under a protocol of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from ..core.config import Protocol, setting
from ..errors import MissingDataError
from ._attributes import AttributeFaces, Size

#: Leaves every part an image.
LEAST = 20


class CelebAAttributesSubset(AttributeFaces):
    """Whatever part of CelebA is there, 64 x 64: 60 % private training, 25 % public, 15 % private test images.

    Of n images ceil(n / 4) are public and ceil(3 n / 20) are test images. Everything else is as in
    `celeba_attributes`.

    Note:
        No paper uses this protocol. Which images it means depends on the copy at hand, so numbers compare only between
        records of the same copy.

    Note:
        The paper's target is ResNet-50. `network` chooses another, since a small copy on a small machine does not train
        it far; most others start from random weights only (`pretrained=false`).

    Note:
        A test part of 1.3 %, as in the paper, would be too small to score.
    """

    title: ClassVar[str] = "celeba_attributes_subset"
    size: Size = setting(64, "height and width of an image in pixels")
    network: str = setting("resnet50", "target, a name in `privbench list networks`", stages=("target",))

    @property
    def protocol(self) -> Protocol:
        """Version 1, with the chosen target."""
        return super().protocol.model_copy(update={"target_network": self.network})

    def counts(self, identities: Mapping[str, int]) -> tuple[int, int]:
        """60 % and 25 % of what is there."""
        n = len(identities)
        if n < LEAST:
            raise MissingDataError(
                f"expected {self.title} to have at least {LEAST} images, got {n}; use a larger copy of CelebA"
            )
        public, test = math.ceil(n / 4), math.ceil(3 * n / 20)
        return n - public - test, public
