"""CelebA as a task of 40 binary attributes, under the protocol of adversarial reconstruction."""

from collections.abc import Mapping
from typing import ClassVar

from ._attributes import AttributeFaces
from ._celeba_files import PUBLISHED
from ._faces import require_whole

TRAIN = 160_000
PUBLIC = 40_000


class CelebAAttributes(AttributeFaces):
    """All of CelebA, 224 x 224: 160,000 private training, 40,000 public and 2,599 private test images.

    Note:
        202,599 images of 224 x 224 take 30 GB once decoded. They are written to `PRIVBENCH_CACHE` one by one and mapped
        into memory, so they need disk space but little memory. If the 24 GB of X1 do not fit on a GPU, batches are
        copied one by one. `size=64` takes 2.5 GB.
    """

    published: ClassVar[Mapping[str, str]] = PUBLISHED
    title: ClassVar[str] = "celeba_attributes"

    def counts(self, identities: Mapping[str, int]) -> tuple[int, int]:
        """Return the published numbers."""
        require_whole(self.title, identities, smaller="celeba_attributes_subset")
        return TRAIN, PUBLIC
