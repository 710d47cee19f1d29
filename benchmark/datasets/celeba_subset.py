"""A smaller copy of CelebA under a protocol of its own: the 100 identities with the most images are private."""

from collections.abc import Mapping
from typing import ClassVar

from ..core.config import Protocol
from ..errors import MissingDataError
from . import _fields
from ._faces import Split
from ._identity_faces import IdentityFaces, by_identity, hold_out

CLASSES = 100
#: One image in five of each private identity, rounded up, is a test image.
TEST_SHARE = 5
#: Images that a private identity has at least: four training images, a group of the identity sampler, are left.
LEAST = 5


class CelebASubset(IdentityFaces):
    """Faces of 100 celebrities from any part of CelebA, 64 x 64.

    The private identities are the 100 with the most images; ties go to the lower identity number. Labels follow
    increasing identity number. Of an identity's n images ceil(n / 5), drawn by a fixed hash, are test images. The
    images of everyone else are public. All 100 labels are attacked, five draws each. The rest is as in `celeba`.

    References:
        Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015,
        https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.

    Note:
        No paper uses this protocol. Its images depend on the copy of CelebA, so only records of the same copy are
        comparable.
    """

    family: ClassVar[str] = "celeba"
    attacked: int = _fields.attacked(CLASSES, CLASSES, smoke=5, quick=20)

    @property
    def protocol(self) -> Protocol:
        """`celeba_subset/v2`."""
        return self._make_protocol("celeba_subset", CLASSES)

    def split(self, identities: Mapping[str, int]) -> Split:
        """Choose the 100 identities with the most images, and one test image in five."""
        groups = by_identity(identities)
        most = sorted(groups, key=lambda identity: (-len(groups[identity]), identity))[:CLASSES]
        private = sorted(identity for identity in most if len(groups[identity]) >= LEAST)
        if len(private) < CLASSES or len(groups) == CLASSES:
            raise MissingDataError(
                f"expected celeba_subset to have {CLASSES} identities with at least {LEAST} images and one more, "
                f"got {len(private)} and {len(groups) - len(private)}; use a larger copy of CelebA"
            )
        chosen = set(private)
        public = (name for name, identity in identities.items() if identity not in chosen)
        return hold_out(groups, private, TEST_SHARE, "celeba_subset/v1", public)
