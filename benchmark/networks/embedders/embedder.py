"""The contract of networks that compare images by one vector each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from ...core.config import Protocol


class Embedder(nn.Module, ABC):
    """Maps images to vectors of unit length, so that an inner product is a cosine.

    An embedder of the registry is made by `(*, pretrained=True)`; `version` is raised when a change alters results.

    Args:
        pretrained: take the weights named by `weights`; otherwise random ones, for tests and for strict loading.
    """

    kind: ClassVar[str] = "embedder"
    version: ClassVar[int] = 1
    #: It means something on aligned faces only.
    faces: ClassVar[bool] = True
    #: Name in `privbench weights ls`; `None`: it has no learned weights.
    weights: ClassVar[str | None] = None

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()

    @abstractmethod
    def embed(self, x: Tensor, protocol: Protocol) -> Tensor:
        """Unit vectors of images; differentiable in `x`.

        Args:
            x: `float32 N C H W` in [0, 1].
            protocol: of the images; says where a face lies in them.

        Returns:
            `float32 N D`, each row of unit L2 norm.

        Raises:
            InvalidConfigurationError: the embedder means nothing on such images.
        """

    def forward(self, x: Tensor, protocol: Protocol) -> Tensor:
        """The vectors."""
        return self.embed(x, protocol)
