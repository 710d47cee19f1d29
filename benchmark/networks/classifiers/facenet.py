"""FaceNet, InceptionResnetV1 of facenet-pytorch: the judge of faces."""

from typing import ClassVar

from facenet_pytorch import InceptionResnetV1
from torch import Tensor, nn
from torch.nn import functional

from ..weights import named
from ..weights.published import transfer, vggface2_state
from .network import Network
from .requirements import Image, require_colour, require_size


class Embedding(nn.Module):
    """512-d face embedding of images in [0, 1], resized to `size` and scaled to (255 x - 127.5) / 128.

    Note:
        The embedding is the output of the last batch norm. facenet-pytorch then divides it by its norm, which does not
        change a cosine but would harm a linear classifier.
    """

    size: ClassVar[int] = 160

    def __init__(self) -> None:
        super().__init__()
        self.body = InceptionResnetV1(pretrained=None, classify=True, num_classes=1)
        self.body.logits = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings `N 512` of images `N 3 H W`; N may be 0, which the package does not support."""
        if not len(x):
            return x.new_zeros(0, 512)
        shrinks = max(x.shape[-2:]) > self.size
        if x.shape[-2:] != (self.size, self.size):
            x = functional.interpolate(x, (self.size, self.size), mode="bilinear", antialias=shrinks)
        embedding: Tensor = self.body((255 * x - 127.5) / 128)
        return embedding


class FaceNet(Network):
    """InceptionResnetV1 with one linear layer, the judge of faces.

    One latent, `embedding`: 512-d, before division by its norm. Images have 3 channels and any size; `pretrained` loads
    facenet-pytorch's VGGFace2 weights into the embedding.

    References:
        Schroff, Kalenichenko, Philbin. FaceNet: A Unified Embedding for Face Recognition and Clustering. CVPR 2015.
        https://arxiv.org/abs/1503.03832
        facenet-pytorch 2.5, https://github.com/timesler/facenet-pytorch

    Note:
        BiDO's judge of faces is an IR-50 at 112 x 112 that starts from MS-Celeb-1M weights. Ours is a face network with
        code and weights from a maintained package.

    Note:
        The released code resizes each image through 8-bit PIL; we resize the batch in floating point, on the device.
    """

    family: ClassVar[str] = "inception_resnet"
    pretraining: ClassVar[str] = "VGGFace2"
    weights: ClassVar[str | None] = "facenet_vggface2"
    #: Side of the images that the embedding uses, in pixels.
    size: ClassVar[int] = Embedding.size

    @classmethod
    def files(cls, *, pretrained: bool) -> dict[str, str]:
        """Hash of the VGGFace2 weights, whose publisher states none."""
        return {"facenet_vggface2": named.digest("facenet_vggface2")} if pretrained else {}

    @classmethod
    def require(cls, image: Image, *, pretrained: bool) -> None:
        """Refuse images without three channels."""
        require_size("facenet", image, 1)
        require_colour("facenet", image, "choose another network or data set")

    def __init__(self, image: Image, classes: int, *, pretrained: bool = False) -> None:
        self.require(image, pretrained=pretrained)
        embedding = Embedding()
        if pretrained:
            state = vggface2_state()
            kept = {key: value for key, value in state.items() if not key.startswith("logits.")}
            transfer(embedding.body, kept, "the VGGFace2 weights of facenet")
        super().__init__({"embedding": embedding, "logits": nn.Linear(512, classes)})
