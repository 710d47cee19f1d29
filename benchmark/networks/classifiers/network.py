"""Base class of classifiers: named stages in order, the last of which gives the logits."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import InvalidConfigurationError


class Network(nn.Module):
    """A classifier that consists of named stages; targets and judges are of this type.

    `stages` maps names to modules that run one after the other. The output of every stage but the last is a latent
    Z_j; the last stage, named `logits`, maps the last latent to the logits. A network takes images in [0, 1] and
    normalises them itself. Latents may be stored channels last: use `flatten`, not `view`.

    A registered network has the constructor `(image, classes, *, pretrained=False)` with the shape (channels, height,
    width) of an image, the number K of classes or attributes, and whether to start from the published weights. It
    raises InvalidConfigurationError for images or weights that it does not support, and MissingDataError for weights
    that are missing. It downloads nothing. Increase `version` when a change alters results.

    Args:
        stages: modules by name, in order; the last is `logits`.

    Example:
        >>> import torch
        >>> net = Network({"flat": nn.Flatten(), "logits": nn.Linear(4, 3)})
        >>> x = torch.zeros(2, 1, 2, 2)
        >>> net.layers, net.logits(x).shape, net.encode(x, "flat").shape
        (('flat',), torch.Size([2, 3]), torch.Size([2, 4]))
    """

    kind: ClassVar[str] = "network"
    version: ClassVar[int] = 1
    #: Family of architectures, such as `vgg` for all depths and widths; empty if unknown.
    family: ClassVar[str] = ""
    #: Training data of the published weights that `pretrained` loads; empty if there are none.
    pretraining: ClassVar[str] = ""
    #: Name in `privbench weights ls` of the published weights that `pretrained` loads; `None` without such weights, or
    #: where `files` names them. A plan says if they are missing.
    weights: ClassVar[str | None] = None

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not stages or list(stages)[-1] != "logits":
            raise InvalidConfigurationError(
                f"expected the last stage of {type(self).__name__} to be named 'logits', got "
                f"{', '.join(stages) or 'none'}; its author must rename it"
            )
        self.stages = nn.ModuleDict(stages)

    @classmethod
    def files(cls, *, pretrained: bool) -> Mapping[str, str]:
        """Return the SHA-256 of the files that the constructor reads, by name, for the keys of what is trained.

        `privbench.hash_file` makes it. Published weights that are refused unless they match their published checksum
        need not be named.

        Raises:
            MissingDataError: a file is missing.
        """
        return {}

    @classmethod
    def require(cls, image: tuple[int, int, int], *, pretrained: bool) -> None:
        """Refuse images or published weights that the network does not support; the constructor calls it first.

        A plan calls it with `pretrained=True` for networks that start from published weights, and builds the others
        without weights.

        Raises:
            InvalidConfigurationError: names the network, the image and those that it supports.
        """

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the latents, from input to output; each can be a cut layer."""
        return tuple(self.stages)[:-1]

    def trace(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compute all latents by name, and the logits, in one pass."""
        latents = {}
        x = _channels_last(x)
        for name, stage in self.stages.items():
            x = stage(x)
            latents[name] = x
        return latents, latents.pop("logits")

    def logits(self, x: Tensor) -> Tensor:
        """Logits `N K` of images `N C H W` in [0, 1]."""
        return self.trace(x)[1]

    def latents(self, x: Tensor) -> dict[str, Tensor]:
        """Latents by name, in order."""
        return self.trace(x)[0]

    def encode(self, x: Tensor, layer: str) -> Tensor:
        """The latent Z at the cut layer `layer`."""
        x = _channels_last(x)
        for name, stage in self.stages.items():
            x = stage(x)
            if name == layer:
                return x
        raise KeyError(f"expected layer to be one of {', '.join(self.layers)}, got {layer!r}")

    def head(self, z: Tensor, layer: str) -> Tensor:
        """Logits `N K` from the latent Z at `layer`."""
        names = list(self.stages)
        if layer not in names:
            raise KeyError(f"expected layer to be one of {', '.join(self.layers)}, got {layer!r}")
        for name in names[names.index(layer) + 1 :]:
            z = self.stages[name](z)
        return z

    def features(self, x: Tensor) -> Tensor:
        """The last latent, flattened to `N D`: the features of a judge."""
        return self.encode(x, self.layers[-1]).flatten(1)

    def backbone(self) -> tuple[dict[str, nn.Module], int]:
        """Return the stages up to flat features `N D`, by name, and D, to attach another head such as a bottleneck.

        Raises:
            InvalidConfigurationError: the network does not end in one linear layer.
        """
        head = self.stages["logits"]
        if not isinstance(head, nn.Linear):
            raise InvalidConfigurationError(
                f"expected {type(self).__name__} to end in a linear layer, got {type(head).__name__}; "
                "define its method backbone()"
            )
        return {name: self.stages[name] for name in self.layers}, head.in_features

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.logits(x)


def _channels_last(x: Tensor) -> Tensor:
    """Store images as N H W C on a CPU, which makes convolutions up to 1.5 times as fast; values do not change.

    Images of one channel match both layouts, so only a copy guarantees this one.
    """
    return x.clone(memory_format=torch.channels_last) if x.dim() == 4 and x.device.type == "cpu" else x
