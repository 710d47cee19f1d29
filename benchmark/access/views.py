"""Views of a target: the queries that each access allows."""

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
    """Check that `x` is a batch of images as a deployed model would accept it.

    Args:
        x: floating `N C H W` in [0, 1] of the protocol's image shape; `N` may be 0.
        protocol: of the target.

    Raises:
        InvalidConfigurationError: `x` is anything else.
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
    """Access of an attack to a target, opened by `open_view`.

    Args:
        access: of the view.
        protocol: of the target.
    """

    def __init__(self, access: Access, protocol: Protocol) -> None:
        self.access: Access = access
        self.protocol = protocol

    @property
    @abstractmethod
    def queries(self) -> dict[str, int]:
        """Number of images so far, by kind of query.

        `forward`: images that entered the network; `backward`: images whose gradient was computed; `head`: latents
        passed to `head`. The last two are 0 without white-box access.
        """

    @abstractmethod
    def resume(self, queries: Mapping[str, int]) -> None:
        """Continue the counts, and the noise of a stochastic target, of an interrupted attack."""

    def unchanged(self) -> bool:
        """Return whether the target is unchanged; the attack cannot change one in another process."""
        return True

    def close(self) -> None:
        """Release the target; `queries` remains readable."""
        return


class WhiteBoxView(View):
    """White-box access: the network itself, with gradients with respect to its inputs.

    A hook on the first stage counts queries, so direct use of `network` or of a copy counts as well; calls of later
    stages do not. The attack must not change the network; `unchanged` checks that.

    Args:
        network: as returned by `rebuild_target`, on its device.
        protocol: of the target.
    """

    def __init__(self, network: Network, protocol: Protocol) -> None:
        super().__init__("white_box", protocol)
        self.network = network
        self._counts = {"forward": 0, "backward": 0, "head": 0}
        first = next(iter(network.stages.values()))
        first.register_forward_pre_hook(_counting_hook(self._counts))
        self._checksum = _checksum(network)

    @property
    def queries(self) -> dict[str, int]:
        """Number of images so far, by kind of query."""
        return dict(self._counts)

    def resume(self, queries: Mapping[str, int]) -> None:
        """Continue the counts of an interrupted attack."""
        self._counts.update({name: int(queries[name]) for name in self._counts})

    def logits(self, x: Tensor) -> Tensor:
        """Logits `N K` of images `N C H W` in [0, 1]."""
        return self.network.logits(x)

    def latents(self, x: Tensor) -> dict[str, Tensor]:
        """Latents by name, in order."""
        return self.network.latents(x)

    def encode(self, x: Tensor, layer: str) -> Tensor:
        """Latents Z at the cut layer `layer`."""
        return self.network.encode(x, layer)

    def head(self, z: Tensor, layer: str) -> Tensor:
        """Logits `N K` of the latent Z at `layer`."""
        self._counts["head"] += len(z)
        return self.network.head(z, layer)

    def unchanged(self) -> bool:
        """Return whether weights and buffers are bit for bit unchanged and every module is in evaluation mode."""
        evaluating = not any(module.training for module in self.network.modules())
        return evaluating and _checksum(self.network) == self._checksum


def _counting_hook(counts: dict[str, int]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
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


class RemoteView(View):
    """A view of a target in another process, which answers one kind of query."""

    def __init__(self, access: Access, protocol: Protocol, process: TargetProcess) -> None:
        super().__init__(access, protocol)
        self._process = process
        self._answered = 0

    @property
    def queries(self) -> dict[str, int]:
        """Number of images so far, by kind of query; the target's process counts them."""
        return {"forward": self._answered, "backward": 0, "head": 0}

    @property
    def empty_answer(self) -> Tensor:
        """Answer to a query without images, which has the shape and dtype of every answer."""
        return self._process.empty_answer

    def resume(self, queries: Mapping[str, int]) -> None:
        """Continue the counts, and the noise of a stochastic target, of an interrupted attack."""
        header, _ = self._process.send({"do": "resume", "answered": int(queries["forward"])})
        self._answered = header["answered"]

    def close(self) -> None:
        """End the target's process; `queries` remains readable."""
        self._process.close()

    def _query(self, x: Tensor) -> Tensor:
        """Send images and return the answers of the target.

        Raises:
            InvalidConfigurationError: `x` is not a batch of images in [0, 1].
            LostTargetError: the target's process has ended.
        """
        check_images(x, self.protocol)
        if len(x) == 0:
            return self._process.empty_answer.to(x.device, copy=True)
        header, tensors = self._process.send({"do": "query"}, {"x": x.detach().float()})
        self._answered = header["answered"]
        return tensors["answer"].to(x.device)


class ScoresView(RemoteView):
    """Score access: class probabilities, nothing else."""

    def scores(self, x: Tensor) -> Tensor:
        """Softmax probabilities `float32 N K` (sigmoid `N A` for attributes) of images `N C H W` in [0, 1]."""
        return self._query(x)


class LabelsView(RemoteView):
    """Label-only access: predicted labels, nothing else."""

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes `int64 N` (attributes `bool N A`) of images `N C H W` in [0, 1]."""
        return self._query(x)


class FeaturesView(RemoteView):
    """Feature access: latents of one cut layer, `layer` (`None`: the last), nothing else."""

    def __init__(self, access: Access, protocol: Protocol, process: TargetProcess, layer: str | None) -> None:
        super().__init__(access, protocol, process)
        self.layer = layer

    def features(self, x: Tensor) -> Tensor:
        """Latents Z of images `N C H W` in [0, 1]."""
        return self._query(x)
