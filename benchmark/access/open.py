"""What an attack may see of a target: a view of its declared access, which counts queries.

`white_box` gives the network itself. `scores`, `labels` and `features` give answers only: the network lives in
another process (`access_server`), which takes images, returns answers and has no message that reads a weight, takes
a gradient or changes the access. In the attack's process there is no target to reach, whatever Python offers: garbage
collector, frames, closures, attributes.

What is not enforced: the attack runs as the same user as the harness. It could read the files of the store, attach a
debugger to the other process, search memory that this process has freed, or replace the methods that count queries.
To keep it from those is the business of the operating system (another user, a container).
"""

from __future__ import annotations

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
from .views import FeaturesView, LabelsView, ScoresView, View, WhiteBoxView


@dataclass(frozen=True)
class TargetSource:
    """How to make a trained target again, without holding it.

    Args:
        rebuild: JSON; `{"defense": name, "fields": {...}}`, or `{"factory": "module:attribute", "arguments": {...}}`
            for a network that no defense makes.
        state: reads the weights, from a file say; a closure over a live network would keep that in the process.
        protocol: what was fixed.
    """

    rebuild: Mapping[str, Any]
    state: Callable[[], Mapping[str, Tensor]]
    protocol: Protocol


def build(source: TargetSource) -> Network:
    """The trained target on the CPU, in evaluation mode, without gradients of its weights.

    Published weights are not fetched, since the trained ones replace them. PyTorch's global generator is left as it
    was.

    Raises:
        MissingDataError: the weights do not fit the network: a name too many or too few, or another shape.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = _untrained(source)
    state = source.state()
    misfit = _misfit(network.state_dict(), state)
    if misfit:
        origin = source.rebuild.get("defense") or source.rebuild["factory"]
        raise MissingDataError(f"expected weights that fit the network of {origin!r}, got {misfit}; train it again")
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def _untrained(source: TargetSource) -> Network:
    rebuild = source.rebuild
    if "factory" in rebuild:
        module, _, attribute = rebuild["factory"].partition(":")
        network: Network = getattr(importlib.import_module(module), attribute)(**rebuild.get("arguments", {}))
        return network
    defense = load("defense", rebuild["defense"])(**rebuild["fields"])
    untrained: Network = defense.network(source.protocol.model_copy(update={"pretrained": False}))
    return untrained


def _misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    for name in sorted(expected.keys() ^ given.keys()):
        return f"none for {name!r}" if name in expected else f"some for {name!r}, which it does not have"
    for name, value in expected.items():
        if value.shape != given[name].shape:
            return f"{name!r} of shape {tuple(given[name].shape)} where it has {tuple(value.shape)}"
    return None


@contextmanager
def open_view(
    access: Access, source: TargetSource, *, device: torch.device, seed: int, layer: str | None = None
) -> Iterator[View]:
    """Open the view of a target that an attack of this access may have.

    Write the source into the call (`with open_view("scores", TargetSource(...), ...) as view`): a variable that holds
    it would put its reader of weights into a frame that the attack can walk to. A target that this process trained and
    let go is collected before the attack begins.

    Args:
        access: `white_box`, `scores`, `labels` or `features`.
        source: how to make the target.
        device: where the target computes; answers come back on the device of the question.
        seed: of the noise of a stochastic target in its own process; in a white box, PyTorch's global generators
            draw it.
        layer: the cut layer of `features`, by default the last latent; other views do not read it.

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
        return WhiteBoxView(build(source).to(device), source.protocol)
    header = {
        "access": access,
        "rebuild": dict(source.rebuild),
        "protocol": source.protocol.model_dump(mode="json"),
        "device": str(device),
        "seed": seed,
        "layer": layer,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
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
