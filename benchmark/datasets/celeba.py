"""CelebA under the protocol of GMI, KED-MI and BiDO: 1000 private identities."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..core.config import Protocol
from ..core.split import ranked
from ..errors import MissingDataError
from ._celeba_files import PUBLISHED
from ._faces import Split, require_whole
from ._identity_faces import IdentityFaces, by_identity, hold_out

CLASSES = 1000
#: Images that a private identity has at least.
LEAST = 30
#: One image in ten of each private identity, rounded up, is a test image.
TEST_SHARE = 10
PUBLIC = 30_000
PUBLIC_PER_IDENTITY = 16


class CelebA(IdentityFaces):
    """Faces of 1000 celebrities, 64 x 64.

    The private identities are the first 1000, by identity number, of those with at least 30 images; labels follow that
    order. Of an identity's n images ceil(n / 10) are test images: 27,018 training and 3,009 test images in all.
    The public part has 30,000 images of other identities, at most 16 of each. The 300 lowest labels are attacked,
    five draws each.

    References:
        Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015,
        https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.
        Zhang et al., "The Secret Revealer", CVPR 2020, https://arxiv.org/abs/1911.07135.

    Note:
        Identities and counts are those of the released lists of KED-MI and BiDO. The authors drew the test images of
        each identity and the 30,000 public images at random. We draw by a fixed hash of the file names, so both sets
        differ from the lists, and the public images come from more identities than their 6,453.

    Note:
        The released lists name PNG conversions of the images; we read the JPEG files of the release, or a PNG copy.

    Note:
        The papers have one judge. The second judge is a ResNet-34 that starts from random weights: it has another
        architecture than VGG (target) and Inception (judge) and has seen neither ImageNet, as the target has, nor
        VGGFace2, as the judge has. It is trained with Adam on cropped and mirrored images, for twice as many epochs as
        the judge, whose images are only mirrored. The package knows face networks of other origin (`dlib_resnet`,
        `mobilefacenet`), but their weights must be imported, so a protocol cannot rely on them; VMI's ResNet-34 reaches
        69 % of 1000 identities from random weights.

    Note:
        With `pretrained=false` target and judge start from random weights, for machines that cannot download published
        weights. The papers always start from weights of ImageNet and MS-Celeb-1M.
    """

    published: ClassVar[Mapping[str, str]] = PUBLISHED

    @property
    def protocol(self) -> Protocol:
        """`celeba/v2`."""
        return self._make_protocol("celeba", CLASSES)

    def split(self, identities: Mapping[str, int]) -> Split:
        """Choose the published identities, and draw their images by a hash."""
        require_whole("celeba", identities, smaller="celeba_subset")
        return choose(identities)


def choose(identities: Mapping[str, int]) -> Split:
    """Split images by the protocol, however many there are.

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
    chosen = set(private)
    others = [name for name, identity in identities.items() if identity not in chosen]
    public = _first_of_each(ranked(others, "celeba/v1", "public"), identities)[:PUBLIC]
    return hold_out(groups, private, TEST_SHARE, "celeba/v1", public)


def _first_of_each(names: Sequence[str], identities: Mapping[str, int]) -> list[str]:
    """Keep the first 16 images of each identity, in the order of `names`."""
    seen: Counter[int] = Counter()
    kept = []
    for name in names:
        seen[identities[name]] += 1
        if seen[identities[name]] <= PUBLIC_PER_IDENTITY:
            kept.append(name)
    return kept
