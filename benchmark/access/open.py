"""Opening of a view: rebuild the target here for white-box access, in another process for the rest."""

import gc
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.config import Access, Protocol
from ..errors import MissingDataError
from ..networks.classifiers.network import Network
from ..registry import load
from .process import TargetProcess
from .settings import current_settings
from .views import FeaturesView, LabelsView, ScoresView, View, WhiteBoxView


@dataclass(frozen=True)
class TargetSource:
    """Instructions to rebuild a trained target, without a reference to it.

    Args:
        rebuild: JSON; `{"defense": name, "fields": {...}}`, or `{"factory": "module:attribute", "arguments": {...}}`
            for a network that no defense makes.
        state: reads the weights, for example from a file; a closure over a network would keep it in this process.
        protocol: of the data set.
    """

    rebuild: Mapping[str, Any]
    state: Callable[[], Mapping[str, Tensor]]
    protocol: Protocol


def rebuild_target(source: TargetSource) -> Network:
    """Rebuild the trained target on the CPU, in evaluation mode, without gradients of its weights.

    Published weights are not downloaded, since the trained ones replace them. PyTorch's global generator keeps its
    state.

    Raises:
        MissingDataError: the weights do not fit the network: a name is missing or unexpected, or a shape differs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = _untrained_network(source)
    state = source.state()
    mismatch = _find_mismatch(network.state_dict(), state)
    if mismatch:
        origin = source.rebuild.get("defense") or source.rebuild["factory"]
        raise MissingDataError(f"expected weights that fit the network of {origin!r}, got {mismatch}; train it again")
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def _untrained_network(source: TargetSource) -> Network:
    rebuild = source.rebuild
    if "factory" in rebuild:
        module, _, attribute = rebuild["factory"].partition(":")
        network: Network = getattr(importlib.import_module(module), attribute)(**rebuild.get("arguments", {}))
        return network
    defense = load("defense", rebuild["defense"])(**rebuild["fields"])
    untrained: Network = defense.network(source.protocol.model_copy(update={"pretrained": False}))
    return untrained


def _find_mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    for name in sorted(expected.keys() ^ given.keys()):
        return f"none for {name!r}" if name in expected else f"an unexpected {name!r}"
    for name, value in expected.items():
        if value.shape != given[name].shape:
            return f"{name!r} of shape {tuple(given[name].shape)} instead of {tuple(value.shape)}"
    return None


@contextmanager
def open_view(
    access: Access, source: TargetSource, *, device: torch.device, seed: int, layer: str | None = None
) -> Iterator[View]:
    """Open the view that an attack with this access gets of a target.

    Write the source into the call (`with open_view("scores", TargetSource(...), ...) as view`): a variable would keep
    its reader of weights in a frame that the attack can reach. A target that this process trained and no longer
    references is garbage-collected before the attack begins.

    Args:
        access: `white_box`, `scores`, `labels` or `features`.
        source: instructions to rebuild the target.
        device: device of the target; answers are returned on the device of the query.
        seed: of the noise of a stochastic target in its own process; for white-box access PyTorch's global generators
            draw it.
        layer: cut layer of `features`, by default the last latent; other views ignore it.

    Yields:
        A `WhiteBoxView`, `ScoresView`, `LabelsView` or `FeaturesView`.

    Raises:
        InvalidConfigurationError: the target has no such layer.
        MissingDataError: the weights do not fit the target's network.
        LostTargetError: the target's process did not start.
    """
    view = _open(access, source, device, seed, layer)
    del source
    try:
        yield view
    finally:
        view.close()


def _open(access: Access, source: TargetSource, device: torch.device, seed: int, layer: str | None) -> View:
    if access == "white_box":
        return WhiteBoxView(rebuild_target(source).to(device), source.protocol)
    header = {
        "access": access,
        "rebuild": dict(source.rebuild),
        "protocol": source.protocol.model_dump(mode="json"),
        "device": str(device),
        "seed": seed,
        "layer": layer,
        **current_settings(),
    }
    process = TargetProcess(header, source.state())
    gc.collect()
    match access:
        case "scores":
            return ScoresView(access, source.protocol, process)
        case "labels":
            return LabelsView(access, source.protocol, process)
        case "features":
            return FeaturesView(access, source.protocol, process, layer)
