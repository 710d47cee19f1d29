"""FaceNet with facenet-pytorch's VGGFace2 weights, which compares faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from torch.nn import functional

from ..classifiers.facenet import Embedding
from ..weights.named import read
from ..weights.published import transfer
from .alignment import align, require_face_box, square
from .embedder import Embedder

if TYPE_CHECKING:
    from ...core.config import Protocol

#: GMI's crop of CelebA's aligned frame: 108 x 108 pixels around the centre.
CHIP = square(35, 55, 108, Embedding.size)


class FaceNetVGGFace2(Embedder):
    """InceptionResnetV1 of facenet-pytorch, 512-d, trained on VGGFace2.

    RGB at 160 x 160, (255 x - 127.5) / 128, which is facenet-pytorch's `fixed_image_standardization`.

    Args:
        pretrained: take facenet-pytorch's VGGFace2 weights, fetched if they are not here; otherwise random ones.

    References:
        Schroff, Kalenichenko, Philbin. FaceNet: A Unified Embedding for Face Recognition and Clustering. CVPR 2015.
        https://arxiv.org/abs/1503.03832
        Cao, Shen, Xie, Parkhi, Zisserman. VGGFace2: A Dataset for Recognising Faces across Pose and Age. FG 2018.
        https://arxiv.org/abs/1710.08092
        facenet-pytorch 2.5, https://github.com/timesler/facenet-pytorch

    Raises:
        MissingDataError: the weights are not here and cannot be fetched, or are damaged.

    Note:
        facenet-pytorch crops the box that its detector finds and stretches it to a square. A reconstruction need not
        have a face that a detector finds, so every image shows one square: the 108 x 108 pixels at (35, 55) of CelebA's
        aligned frame, a loose box of the face without stretching. It is the crop that GMI, KED-MI and BiDO take, so
        that under their protocols the network sees the whole image and nothing beyond it.
    """

    weights: ClassVar[str | None] = "facenet_vggface2"

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.embedding = Embedding()
        if pretrained:
            state = read("facenet_vggface2")
            kept = {key: value for key, value in state.items() if not key.startswith("logits.")}
            transfer(self.embedding.body, kept, "the weights facenet_vggface2")

    def embed(self, x: Tensor, protocol: Protocol) -> Tensor:
        """Unit vectors `N 512` of aligned faces.

        Raises:
            InvalidConfigurationError: the protocol has no `face_box`, or the images are neither grey nor in colour.
        """
        box = require_face_box("facenet_vggface2", protocol)
        if len(x) == 0:  # facenet-pytorch's network takes no empty batch
            return x.new_zeros(0, 512)
        chips = align(x, box, CHIP)
        return functional.normalize(self.embedding(chips), dim=1)
