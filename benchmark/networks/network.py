"""The network contract: named stages in order, the last of which gives the logits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Network(nn.Module):
    """A classifier cut into named stages; targets and judges are of this type.

    `stages` maps names to modules that run one after the other. The output of every stage but the last is a latent
    Z_j; the last stage, named `logits`, maps the last latent to the logits. A network takes images in [0, 1] and
    normalises for itself.

    Args:
        stages: modules by name, in order; the last is `logits`.

    Example:
        >>> import torch
        >>> net = Network({"flat": nn.Flatten(), "logits": nn.Linear(4, 3)})
        >>> x = torch.zeros(2, 1, 2, 2)
        >>> net.layers, net.logits(x).shape, net.encode(x, "flat").shape
        (('flat',), torch.Size([2, 3]), torch.Size([2, 4]))
    """

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        assert list(stages)[-1] == "logits"
        self.stages = nn.ModuleDict(stages)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the latents, from input to output; each can be a cut layer."""
        return tuple(self.stages)[:-1]

    def trace(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """All latents by name, and the logits, in one pass."""
        latents = {}
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
        """The last latent, flattened to `N D`: what judges compare in."""
        return self.encode(x, self.layers[-1]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.logits(x)
