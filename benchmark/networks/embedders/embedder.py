"""Base class of embedders, networks that compare images by one vector each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from ..weights.named import digest

if TYPE_CHECKING:
    from ...core.config import Protocol


class Embedder(nn.Module, ABC):
    """Network that maps images to unit vectors, whose inner product is a cosine.

    A registered embedder has the constructor `(*, pretrained=True)`. Increase `version` when a change alters results.

    Args:
        pretrained: load the weights named by `weights`; otherwise they are random, for tests and for strict loading.

    Raises:
        MissingDataError: the weights are missing or damaged.
    """

    kind: ClassVar[str] = "embedder"
    version: ClassVar[int] = 1
    #: Whether the embedder supports only aligned faces.
    faces: ClassVar[bool] = True
    #: Name in `privbench weights ls`; `None` without learned weights.
    weights: ClassVar[str | None] = None

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()

    @classmethod
    def files(cls) -> Mapping[str, str]:
        """Return the SHA-256 of the files that the constructor reads, by name; by default that of `weights`.

        Raises:
            MissingDataError: a file is missing or damaged.
        """
        return {cls.weights: digest(cls.weights)} if cls.weights else {}

    @abstractmethod
    def embed(self, x: Tensor, protocol: Protocol) -> Tensor:
        """Embed images as unit vectors; differentiable in `x`.

        Args:
            x: `float32 N C H W` in [0, 1].
            protocol: of the images; gives the position of the face in them.

        Returns:
            `float32 N D`, each row of unit L2 norm.

        Raises:
            InvalidConfigurationError: the embedder does not support such images.
        """

    def forward(self, x: Tensor, protocol: Protocol) -> Tensor:
        """Embed images as `embed` does."""
        return self.embed(x, protocol)
