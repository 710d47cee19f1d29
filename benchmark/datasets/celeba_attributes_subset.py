"""A smaller copy of CelebA as a task of 40 binary attributes, under a protocol of its own."""

import math
from collections.abc import Mapping
from typing import ClassVar

from ..core.config import Protocol, setting
from ..errors import MissingDataError
from ._attributes import AttributeFaces, Size

#: Images needed for every part to have one.
LEAST = 20


class CelebAAttributesSubset(AttributeFaces):
    """Any part of CelebA, 64 x 64: 60 % private training, 25 % public, 15 % private test images.

    Of n images ceil(n / 4) are public and ceil(3 n / 20) are test images. The rest is as in `celeba_attributes`.

    Note:
        No paper uses this protocol. Its images depend on the copy of CelebA, so only records of the same copy are
        comparable.

    Note:
        The paper's target is ResNet-50. `network` chooses another, for small copies and small machines, which are not
        enough to train it; most other networks have no published weights and need `pretrained=false`.

    Note:
        A test part of 1.3 %, as in the paper, would be too small to score.
    """

    title: ClassVar[str] = "celeba_attributes_subset"
    size: Size = setting(64, "height and width of an image in pixels")
    network: str = setting("resnet50", "target, a name in `privbench list networks`", stages=("target",))

    @property
    def protocol(self) -> Protocol:
        """Version 2, with the chosen target."""
        return super().protocol.model_copy(update={"target_network": self.network})

    def counts(self, identities: Mapping[str, int]) -> tuple[int, int]:
        """Return 60 % and 25 % of the number of images."""
        n = len(identities)
        if n < LEAST:
            raise MissingDataError(
                f"expected {self.title} to have at least {LEAST} images, got {n}; use a larger copy of CelebA"
            )
        public, test = math.ceil(n / 4), math.ceil(3 * n / 20)
        return n - public - test, public
