"""FaceNet with facenet-pytorch's VGGFace2 weights, an embedder of faces."""

from typing import ClassVar

from torch import Tensor

from ..classifiers.facenet import Embedding
from ..weights.named import read
from ..weights.published import transfer
from .alignment import AlignedFaceEmbedder, Chip, square


class FaceNetVGGFace2(AlignedFaceEmbedder):
    """InceptionResnetV1 of facenet-pytorch, 512-d, trained on VGGFace2.

    RGB at 160 x 160, (255 x - 127.5) / 128, which is facenet-pytorch's `fixed_image_standardization`.

    References:
        Schroff, Kalenichenko, Philbin. FaceNet: A Unified Embedding for Face Recognition and Clustering. CVPR 2015.
        https://arxiv.org/abs/1503.03832
        Cao, Shen, Xie, Parkhi, Zisserman. VGGFace2: A Dataset for Recognising Faces across Pose and Age. FG 2018.
        https://arxiv.org/abs/1710.08092
        facenet-pytorch 2.5, https://github.com/timesler/facenet-pytorch

    Note:
        facenet-pytorch crops the box that its detector finds and stretches it to a square. A detector may find no face
        in a reconstruction, so we use one fixed square for every image: the 108 x 108 pixels at (35, 55) of CelebA's
        aligned frame, a loose box of the face without stretching. GMI, KED-MI and BiDO use the same crop, so under
        their protocols the input of the network is exactly the image.
    """

    weights: ClassVar[str] = "facenet_vggface2"
    #: GMI's crop of CelebA's aligned frame: 108 x 108 pixels around the centre.
    chip: ClassVar[Chip] = square(35, 55, 108, Embedding.size)

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.embedding = Embedding()
        if pretrained:
            state = read("facenet_vggface2")
            kept = {key: value for key, value in state.items() if not key.startswith("logits.")}
            transfer(self.embedding.body, kept, "the weights facenet_vggface2")

    def compute(self, chips: Tensor) -> Tensor:
        """FaceNet's embeddings `N 512`, not normalised, of chips `N 3 160 160` in [0, 1]."""
        embeddings: Tensor = self.embedding(chips)
        return embeddings
