"""Views of a target: what an attack of each access can query."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from ..core.config import Access, Protocol
from ..errors import InvalidConfigurationError
from ..networks.classifiers.network import Network
from .process import TargetProcess


def check_images(x: Tensor, protocol: Protocol) -> None:
    """Refuse what a deployed model would not take for images.

    Args:
        x: to be floating `N C H W` in [0, 1] of the protocol's image shape; `N` may be 0.
        protocol: of the target.

    Raises:
        InvalidConfigurationError: it is something else.
    """
    wanted = "x".join(map(str, ("N", *protocol.image)))
    if not isinstance(x, Tensor):
        raise InvalidConfigurationError(f"expected x to be a tensor {wanted}, got {type(x).__name__}")
    if not x.is_floating_point() or x.ndim != 4 or tuple(x.shape[1:]) != protocol.image:
        got = f"{str(x.dtype).removeprefix('torch.')} {'x'.join(map(str, x.shape)) or 'scalar'}"
        raise InvalidConfigurationError(f"expected x to be floating images {wanted} in [0, 1], got {got}")
    if not bool(((x >= 0) & (x <= 1)).all()):
        low, high = x.min().item(), x.max().item()
        raise InvalidConfigurationError(
            f"expected x to lie in [0, 1], got values from {low:.6g} to {high:.6g}; clamp or rescale the images"
        )


class View(ABC):
    """What an attack sees of a target, opened by `open_view`.

    Args:
        access: of the view.
        protocol: what was fixed.
    """

    def __init__(self, access: Access, protocol: Protocol) -> None:
        self.access: Access = access
        self.protocol = protocol

    @property
    @abstractmethod
    def queries(self) -> dict[str, int]:
        """Images so far, by kind of query.

        `forward`: images that entered the network; `backward`: images of which a gradient was taken; `head`: latents
        given to `head`. The last two are 0 where the access has no gradients.
        """

    @abstractmethod
    def resume(self, queries: Mapping[str, int]) -> None:
        """Go on counting, and drawing the noise of a stochastic target, where an interrupted attack left off."""

    def unchanged(self) -> bool:
        """Whether the attack left the target as it was; one in another process cannot be changed from here."""
        return True

    def close(self) -> None:
        """Release the target; `queries` can still be read."""
        return


class WhiteBoxView(View):
    """The network itself, with gradients to its inputs.

    A hook on the first stage counts, so that `network` used directly counts as the methods here do, and so does a
    copy of it; later stages called by hand do not. The attack must leave the network as it is: `unchanged` tells.

    Args:
        network: as `build` returns it, on its device.
        protocol: what was fixed.
    """

    def __init__(self, network: Network, protocol: Protocol) -> None:
        super().__init__("white_box", protocol)
        self.network = network
        self._counts = {"forward": 0, "backward": 0, "head": 0}
        first = next(iter(network.stages.values()))
        first.register_forward_pre_hook(_counting(self._counts))
        self._checksum = _checksum(network)

    @property
    def queries(self) -> dict[str, int]:
        """Images so far, by kind of query."""
        return dict(self._counts)

    def resume(self, queries: Mapping[str, int]) -> None:
        """Go on counting where an interrupted attack left off."""
        self._counts.update({name: int(queries[name]) for name in self._counts})

    def logits(self, x: Tensor) -> Tensor:
        """Logits `N K` of images `N C H W` in [0, 1]."""
        return self.network.logits(x)

    def latents(self, x: Tensor) -> dict[str, Tensor]:
        """Latents by name, in order."""
        return self.network.latents(x)

    def encode(self, x: Tensor, layer: str) -> Tensor:
        """The latent Z at the cut layer `layer`."""
        return self.network.encode(x, layer)

    def head(self, z: Tensor, layer: str) -> Tensor:
        """Logits `N K` from the latent Z at `layer`."""
        self._counts["head"] += len(z)
        return self.network.head(z, layer)

    def unchanged(self) -> bool:
        """Whether weights and buffers are bit for bit as they were, and every module still in evaluation mode."""
        still = not any(module.training for module in self.network.modules())
        return still and _checksum(self.network) == self._checksum


def _counting(counts: dict[str, int]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
    def backward(gradient: Tensor) -> None:
        counts["backward"] += len(gradient)

    def forward(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        counts["forward"] += len(inputs[0])
        if not (torch.is_grad_enabled() and inputs[0].requires_grad):
            return None
        x = inputs[0].view_as(inputs[0])
        x.register_hook(backward)  # type: ignore[no-untyped-call]
        return (x, *inputs[1:])

    return forward


def _checksum(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in chain(network.named_parameters(), network.named_buffers()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _AnswersView(View):
    """A view of a target in another process."""

    def __init__(self, access: Access, protocol: Protocol, process: TargetProcess) -> None:
        super().__init__(access, protocol)
        self._process = process
        self._answered = 0
        self._empty = process.ready[1]["answer"]

    @property
    def queries(self) -> dict[str, int]:
        """Images so far, by kind of query; the target's process counts."""
        return {"forward": self._answered, "backward": 0, "head": 0}

    def resume(self, queries: Mapping[str, int]) -> None:
        """Go on counting, and drawing the noise of a stochastic target, where an interrupted attack left off."""
        header, _ = self._process.ask({"do": "resume", "answered": int(queries["forward"])})
        self._answered = header["answered"]

    def close(self) -> None:
        """End the target's process; `queries` can still be read."""
        self._process.close()

    def _ask(self, x: Tensor) -> Tensor:
        check_images(x, self.protocol)
        if len(x) == 0:
            return self._empty.to(x.device, copy=True)
        header, tensors = self._process.ask({"do": "ask"}, {"x": x.detach().float()})
        self._answered = header["answered"]
        return tensors["answer"].to(x.device)


class ScoresView(_AnswersView):
    """Probabilities, without gradients."""

    def scores(self, x: Tensor) -> Tensor:
        """Softmax probabilities `float32 N K` (sigmoid `N A` for attributes) of images `N C H W` in [0, 1].

        Raises:
            InvalidConfigurationError: `x` is not a batch of such images.
            LostTargetError: the target's process is gone.
        """
        return self._ask(x)


class LabelsView(_AnswersView):
    """Decisions only."""

    def labels(self, x: Tensor) -> Tensor:
        """Most probable class `int64 N` (decisions `bool N A` for attributes) of images `N C H W` in [0, 1].

        Raises:
            InvalidConfigurationError: `x` is not a batch of such images.
            LostTargetError: the target's process is gone.
        """
        return self._ask(x)


class FeaturesView(_AnswersView):
    """Latents at one cut layer, `layer` (`None`: the last), without gradients."""

    def __init__(self, access: Access, protocol: Protocol, process: TargetProcess, layer: str | None) -> None:
        super().__init__(access, protocol, process)
        self.layer = layer

    def features(self, x: Tensor) -> Tensor:
        """The latent Z of images `N C H W` in [0, 1].

        Raises:
            InvalidConfigurationError: `x` is not a batch of such images.
            LostTargetError: the target's process is gone.
        """
        return self._ask(x)
