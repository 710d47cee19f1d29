"""Load exported targets, with checks at every step and without unpickling."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.config import Protocol
from ..core.evidence import Images
from ..errors import (
    CorruptArtifactError,
    IncompatibleRecordError,
    MissingDataError,
    PrivbenchError,
    UnknownComponentError,
)
from ..files.safetensors_header import DTYPES, MAX_HEADER, Layout, layouts
from ..files.tensors import unpack
from ..files.untrusted import shown
from ..networks.classifiers.network import Network
from ..networks.judges import accuracy
from ..pipeline.resolve import build
from ..pipeline.trained_models import AGREEMENT, predict
from ..records.record import Choice
from ..registry import Kind, find, load
from . import manifest as exported
from .manifest import DECIDING, Answers, Architecture, Exported

log = logging.getLogger("privbench")
CPU = torch.device("cpu")
#: Tolerance on logits, relative to the largest; allows for rounding on another machine.
ROUNDING = 1e-3
#: Tolerance on the test accuracy; allows for rounding on another device.
TOLERANCE = 0.01
_TORCH = {getattr(torch, name): name for name in DTYPES.values()}


def load_export(
    folder: Path,
    *,
    sha256: str | None = None,
    device: torch.device = CPU,
    check_accuracy: bool = False,
    data: Path | None = None,
) -> Network:
    """Load the target in a folder that `privbench export` made, in evaluation mode.

    Checks, in this order: the manifest (its SHA-256 if given), the components that it names, its protocol, size and
    SHA-256 of the weights, names, types, shapes and values of the tensors, the logits for images of noise, and, if
    requested, the test accuracy.

    Args:
        folder: of the export.
        sha256: of the manifest.
        device: for the target.
        check_accuracy: test it again on the private test images.
        data: the data folder, for `check_accuracy`.

    Raises:
        PrivbenchError: something is missing or does not match.
    """
    manifest = exported.read_manifest(folder, sha256)
    dataset, defense = components(manifest, folder)
    protocol: Protocol = dataset.protocol.model_copy(update={"pretrained": False})
    _require_protocol(manifest, protocol, folder)
    network = _rebuilt(manifest, defense, protocol, folder)
    _require_answers(network, manifest, protocol, folder)
    network = network.to(device).eval()
    if check_accuracy:
        assert data is not None
        test = dataset.load("private_test", data)
        claim = (manifest.test_accuracy, manifest.n)
        logits = recheck(network, test, protocol, claim, manifest.decisions.seed, device, str(folder))
        _require_decisions(logits, manifest, protocol, folder)
    return network


def components(manifest: Exported, folder: Path) -> tuple[Any, Any]:
    """Build the data set and defense of an export from the installed components.

    Raises:
        IncompatibleRecordError: one is not installed, or comes from another package or version.
        CorruptArtifactError: a field is unknown or invalid.
    """
    dataset = _component("dataset", manifest.dataset, folder)
    defense = _component("defense", manifest.defense, folder)
    _require_installed("network", manifest.network, folder)
    return dataset, defense


def _component(kind: Kind, recorded: Choice, folder: Path) -> Any:
    cls = _require_installed(kind, recorded, folder)
    named = sorted(local_fields(cls) & {name for name, value in recorded.fields.items() if value is not None})
    if named:
        raise CorruptArtifactError(
            f"expected {kind}.{named[0]} to be absent from {folder}, since it names files of another machine, got "
            f"{shown(repr(recorded.fields[named[0]]))}; export the target again"
        )
    try:
        return build(cls, recorded.fields, kind, recorded.name)
    except PrivbenchError as cause:
        raise CorruptArtifactError(
            f"the target in {folder} has an invalid configuration: {shown(cause, 300)}"
        ) from None


def _require_installed(kind: Kind, recorded: Choice | Architecture, folder: Path) -> Any:
    theirs = shown(recorded.distribution)
    try:
        entry = find(kind, recorded.name)
    except UnknownComponentError:
        release = f" {shown(recorded.release)}" if isinstance(recorded, Architecture) else ""
        raise IncompatibleRecordError(
            f"expected the {kind} {recorded.name!r} of {theirs}{release} to be installed, which the target in {folder} "
            f"is made with, found none; install the package that registers it, if you trust it"
        ) from None
    cls = load(kind, recorded.name)
    ours = (entry.distribution, cls.version)
    if ours != (recorded.distribution, recorded.version):
        raise IncompatibleRecordError(
            f"the target in {folder} was made with {kind} {recorded.name} of {theirs}, version {recorded.version}, but "
            f"{ours[0]}, version {ours[1]}, is installed; get a target of this version"
        )
    return cls


def local_fields(component: type[Any]) -> set[str]:
    """Fields of a component that name files or folders of the machine."""
    return {name for name, info in component.model_fields.items() if "Path" in str(info.annotation)}


def _require_protocol(manifest: Exported, protocol: Protocol, folder: Path) -> None:
    """Refuse a target of another protocol or version."""
    ours, theirs = protocol.model_dump(mode="json"), manifest.protocol
    if manifest.protocol_id != protocol.id:
        raise IncompatibleRecordError(
            f"the target in {folder} has protocol {manifest.protocol_id}, but {manifest.dataset.name} is {protocol.id} "
            f"here, whose numbers are not comparable; get a target of {protocol.id}"
        )
    for name in DECIDING:
        if ours[name] != theirs[name]:
            raise CorruptArtifactError(
                f"expected protocol.{name} in {folder} to be {shown(repr(ours[name]))} as in {protocol.id}, got "
                f"{shown(repr(theirs[name]))}; get the target again"
            )
    if manifest.network.name != protocol.target_network:
        raise CorruptArtifactError(
            f"expected network.name in {folder} to be {protocol.target_network!r} as in {protocol.id}, got "
            f"{manifest.network.name!r}; get the target again"
        )


def _rebuilt(manifest: Exported, defense: Any, protocol: Protocol, folder: Path) -> Network:
    """Rebuild the network with its weights on the CPU; sizes are checked before memory is allocated."""
    path = str(folder / exported.WEIGHTS)
    wanted = _expected(defense, protocol)
    most = sum(layout.elements * _bytes(layout) for layout in wanted.values()) + MAX_HEADER
    if manifest.weights.bytes > most:
        raise CorruptArtifactError(
            f"expected the weights of {manifest.title} to take at most {most:,} bytes, got {manifest.weights.bytes:,} "
            f"in {folder}; get the target again"
        )
    content = exported.read_weights(folder, manifest.weights)
    require_layouts(layouts(content, path), wanted, path)
    state = unpack(content)
    require_finite(state, path)
    network = untrained(defense, protocol)
    network.load_state_dict(state, strict=True)
    return network.eval()


def untrained(defense: Any, protocol: Protocol) -> Network:
    """Build the network of a defense with arbitrary weights; PyTorch's global generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network: Network = defense.network(protocol)
    return network


def _expected(defense: Any, protocol: Protocol) -> dict[str, Layout]:
    """Types and shapes of the weights of a target."""
    try:
        with torch.device("meta"):
            network = untrained(defense, protocol)
    except PrivbenchError:
        raise
    except Exception:  # some initialisations do not work on the meta device
        network = untrained(defense, protocol)
    return layouts_of(network.state_dict())


def layouts_of(state: dict[str, Tensor]) -> dict[str, Layout]:
    """Types and shapes of named tensors."""
    return {
        name: Layout(_TORCH.get(value.dtype, str(value.dtype)), tuple(value.shape)) for name, value in state.items()
    }


def _bytes(layout: Layout) -> int:
    return int(getattr(torch, layout.dtype).itemsize)


def require_layouts(given: dict[str, Layout], wanted: dict[str, Layout], source: str) -> None:
    """Refuse weights whose names, types or shapes are not those of the network.

    Raises:
        CorruptArtifactError: names the first difference.
    """
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing:
        fault = f"no tensor {missing[0]!r} ({wanted[missing[0]]})" + _more(missing)
    elif extra:
        fault = f"a tensor {shown(repr(extra[0]))} that the network does not have" + _more(extra)
    else:
        differing = sorted(name for name in wanted if given[name] != wanted[name])
        if not differing:
            return
        name = differing[0]
        fault = f"{name!r} of {shown(given[name])} instead of {wanted[name]}" + _more(differing)
    raise CorruptArtifactError(f"expected {source} to fit the network of its manifest, got {fault}; get it again")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more like it" if len(names) > 1 else ""


def require_finite(state: dict[str, Tensor], source: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        CorruptArtifactError: a value is infinite or not a number.
    """
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise CorruptArtifactError(
                f"expected {source} to hold finite weights, got infinity or NaN in {name!r}; train the target again"
            )


def noise(answers_seed: int, count: int, protocol: Protocol) -> Tensor:
    """Images `uint8 N C H W` of noise, the same on every machine."""
    generator = torch.Generator().manual_seed(answers_seed)
    return torch.randint(0, 256, (count, *protocol.image), dtype=torch.uint8, generator=generator)


def _require_answers(network: Network, manifest: Exported, protocol: Protocol, folder: Path) -> None:
    """Refuse a network that computes something else than the exported one, such as after a change of its code."""
    answers: Answers = manifest.answers
    if any(len(row) != protocol.classes for row in answers.logits):
        raise CorruptArtifactError(
            f"expected answers.logits in {folder} to hold {protocol.classes} logits per image, got another number; "
            "get the target again"
        )
    stored = torch.tensor(answers.logits, dtype=torch.float64)
    found = predict(network, noise(answers.seed, len(stored), protocol), CPU, answers.seed).double()
    difference = float((found - stored).abs().max() / stored.abs().max().clamp_min(1.0))
    if not difference <= ROUNDING:
        raise CorruptArtifactError(
            f"the target in {folder} does not compute what it did when it was exported: its logits for noise differ by "
            f"{difference:.2g} of the largest, more than {ROUNDING:g}; get it again, or install the privbench "
            f"{shown(manifest.privbench)} that exported it"
        )


def _require_decisions(logits: Tensor, manifest: Exported, protocol: Protocol, folder: Path) -> None:
    """Refuse a target that does not repeat its decisions for the first private test images.

    Args:
        logits: `N K`, of all private test images.
        manifest: of the export, with the decisions.
        protocol: of the target.
        folder: of the export, for messages.
    """
    said = manifest.decisions.said
    texts = [value for value in said if isinstance(value, str)]
    attributes = protocol.task == "attributes"
    fits = len(texts) == len(said) if attributes else not texts
    if not fits or not 0 < len(said) <= len(logits) or any(len(text) != protocol.classes for text in texts):
        raise CorruptArtifactError(
            f"expected decisions.said in {folder} to hold {'attributes' if attributes else 'classes'} of at most "
            f"{len(logits)} images, got something else; get the target again"
        )
    truth = torch.tensor([[c == "1" for c in text] for text in texts] if attributes else said)
    agreement = accuracy(logits[: len(said)], truth)
    if agreement < AGREEMENT:
        raise CorruptArtifactError(
            f"the target in {folder} repeats {agreement:.1%} of its {len(said)} stored decisions on private test "
            f"images, expected at least {AGREEMENT:.0%}; get it again, or point data to the copy it was tested on"
        )


def recheck(
    network: Network,
    test: Images,
    protocol: Protocol,
    claim: tuple[float, int],
    seed: int,
    device: torch.device,
    source: str,
) -> Tensor:
    """Test a target again; returns its logits `N K`.

    Args:
        network: the target.
        test: the private test images.
        protocol: of the target.
        claim: the claimed accuracy, and the number of images that it was measured on.
        seed: of a stochastic target.
        device: to compute on.
        source: of the claim, for messages.

    Raises:
        MissingDataError: the number of test images differs.
        CorruptArtifactError: the accuracy differs by more than `TOLERANCE`.
    """
    claimed, n = claim
    if len(test) != n:
        raise MissingDataError(
            f"expected the {n} private test images of {protocol.id} that {source} was tested on, got {len(test)}; "
            "point data to the same copy"
        )
    logits = predict(network, test.pixels, device, seed)
    value = accuracy(logits, test.truth(protocol.task))
    if abs(value - claimed) > TOLERANCE:
        raise CorruptArtifactError(
            f"the target in {source} has a test accuracy of {value:.2%} on {n} images, but its manifest claims "
            f"{claimed:.2%}, a difference of {100 * (value - claimed):+.2f} points; do not use it"
        )
    log.info("%s: test accuracy %.2f %%, claimed %.2f %%", source, 100 * value, 100 * claimed)
    return logits
