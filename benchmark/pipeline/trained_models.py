"""Load trained networks from the store: targets and judges, strictly and checked against what was stored."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.config import Protocol
from ..core.evidence import Images
from ..core.seeds import derive, seed_layers
from ..errors import CorruptArtifactError
from ..networks.classifiers.network import Network
from ..networks.factory import build_network
from ..networks.judges import Judge, Judges, accuracy
from ..store.manifest import Artifact
from .cell import Cell
from .facts import JudgeFacts, TargetFacts

#: Images per forward pass when a whole part is predicted; part of what makes stochastic targets repeatable.
CHUNK = 256
#: Least share of stored decisions of the first chunk that must be repeated; another device rounds differently.
AGREEMENT = 0.99


def state(network: Network) -> dict[str, Tensor]:
    """Return the network's parameters and buffers on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def predict(network: Network, pixels: Tensor, device: torch.device, seed: int) -> Tensor:
    """Predict logits `float32 N K` on the CPU, of `uint8 N C H W`; a stochastic target is seeded chunk by chunk."""
    network = network.to(device).eval()
    devices = [device] if device.type == "cuda" else []
    logits = []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        for i, begin in enumerate(range(0, len(pixels), CHUNK)):
            seed_layers(device, derive(seed, "predict", i))
            part = pixels[begin : begin + CHUNK]
            logits.append(network.logits(part.to(device).float().div(255)).cpu())
    return torch.cat(logits)


def load_target(artifact: Artifact, cell: Cell, test: Images, device: torch.device) -> Network:
    """Load the target of a cell, ready to be attacked.

    Args:
        artifact: of the target stage.
        cell: whose defense knows the architecture.
        test: the private test images, whose stored predictions the target must repeat.
        device: where to put it.

    Raises:
        CorruptArtifactError: keys or shapes differ, or the predictions are not those that were stored.
    """
    protocol = untrained_protocol(cell.dataset.component.protocol)
    network: Network = cell.defense.component.network(protocol)
    load_strictly(network, artifact, f"target of {cell.defense.name}")
    stored = artifact.tensors("predictions")["logits"][:CHUNK]
    found = predict(network, test.pixels[: len(stored)], device, TargetFacts.of(artifact).prediction_seed)
    agreement = accuracy(found, _decisions(stored, protocol)) if len(stored) else 1.0
    if agreement < AGREEMENT:
        raise CorruptArtifactError(
            f"target of {cell.defense.name} repeats {agreement:.1%} of its stored predictions, expected at least "
            f"{AGREEMENT:.0%}; remove {artifact.path} and run again"
        )
    return network


def _decisions(logits: Tensor, protocol: Protocol) -> Tensor:
    """Return the decisions of logits: `int64 N` classes, or `bool N A` attributes."""
    return logits.argmax(1) if protocol.task == "classes" else logits > 0


def load_judge(artifact: Artifact, protocol: Protocol, device: torch.device, *, second: bool = False) -> Judge:
    """Load the judge (the evaluation classifier), or the second judge.

    Raises:
        CorruptArtifactError: keys or shapes differ.
    """
    network, name = judge_network(protocol, pretrained=False, second=second), judge_name(protocol, second=second)
    load_strictly(network, artifact, f"{'second judge' if second else 'judge'} {name}")
    return Judge(network, device, name=name, test_accuracy=JudgeFacts.of(artifact).test_accuracy)


def load_judges(artifacts: Mapping[str, Artifact], protocol: Protocol, device: torch.device) -> Judges:
    """Return the judges whose artifacts are given, by role; each is loaded on first use."""
    return Judges(
        lambda: load_judge(artifacts["judge"], protocol, device),
        device,
        protocol,
        (lambda: load_judge(artifacts["second_judge"], protocol, device, second=True))
        if "second_judge" in artifacts
        else None,
    )


def judge_name(protocol: Protocol, *, second: bool) -> str:
    """Return the name of a judge's network."""
    name = protocol.second_judge_network if second else protocol.judge_network
    assert name is not None
    return name


def judge_network(protocol: Protocol, *, pretrained: bool, second: bool = False) -> Network:
    """Build the untrained judge, or the untrained second judge."""
    name = judge_name(protocol, second=second)
    return build_network(name, protocol.image, protocol.judge_classes, pretrained=pretrained)


def load_strictly(network: Network, artifact: Artifact, what: str) -> None:
    """Load `network`'s weights; every key must be there, and no other.

    Raises:
        CorruptArtifactError: keys or shapes differ, as with the checkpoint of another network.
    """
    tensors = artifact.tensors("network")
    expected = network.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    shapes = [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if missing or unexpected or shapes:
        raise CorruptArtifactError(
            f"weights in {artifact.path} are not those of the {what}: {len(missing)} keys are missing, "
            f"{len(unexpected)} are unexpected, {len(shapes)} have another shape; remove the folder and run again"
        )
    network.load_state_dict(tensors, strict=True)


def untrained_protocol(protocol: Protocol) -> Protocol:
    """Return the protocol without published weights, for a network whose trained weights are loaded next."""
    return protocol.model_copy(update={"pretrained": False})
