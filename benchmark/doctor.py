"""Checks of this machine: devices, data, weights, free disk, and what each missing one would enable."""

import importlib.metadata
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from . import registry
from .core.paths import Address
from .errors import PrivbenchError
from .isolation import sandbox
from .networks.weights import named
from .networks.weights.importing import users
from .store.shared import Remote


@dataclass(frozen=True)
class Diagnosis:
    """Result of the check of one device, data set, package or file.

    Args:
        what: its name.
        present: true if it is available.
        detail: a description, or what it would enable and how to install it.
    """

    what: str
    present: bool
    detail: str


def diagnose(data_root: Path, store: Address) -> list[Diagnosis]:
    """Check everything that a run may need, without writing anything."""
    folders = [_folder("data folder", data_root), _folder("store folder", Path(store.root))]
    shared = [_shared(store.remote)] if store.remote else []
    return [*_devices(), _ray(), _isolation(), *folders, *shared, *_datasets(data_root), *_weights(), *_components()]


def _devices() -> list[Diagnosis]:
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(cuda))
    mps = torch.backends.mps.is_available()
    return [
        Diagnosis("CPU", True, f"{torch.get_num_threads()} threads, torch {torch.__version__}"),
        Diagnosis("CUDA", cuda > 0, names or "a CUDA device would make the budget `full` practical"),
        Diagnosis("MPS", mps, "Apple GPU" if mps else "an Apple GPU would speed up training on a Mac"),
    ]


def _ray() -> Diagnosis:
    try:
        return Diagnosis("Ray", True, importlib.metadata.version("ray"))
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis("Ray", False, "would enable --runner ray; pip install 'privbench[ray]'")


def _isolation() -> Diagnosis:
    """Describe the isolation of attacks of plugins, and of all with --sandbox, from private data."""
    if sandbox.method() == "bubblewrap":
        return Diagnosis("isolation of attacks", True, "bubblewrap: no files of yours, no other process, no network")
    lack = (
        "attacks of plugins run as you, in a process of their own; bubblewrap (bwrap) would hide your files from them"
    )
    return Diagnosis("isolation of attacks", False, lack)


def _folder(what: str, folder: Path) -> Diagnosis:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free / 2**30
    enough = free >= 2
    detail = f"{folder}, {free:.0f} GiB free"
    return Diagnosis(what, enough, detail if enough else f"{detail}; a full run needs at least 2 GiB")


def _shared(url: str) -> Diagnosis:
    """The tier of a store that several machines share."""
    try:
        exists = Remote(url).exists()
    except PrivbenchError as cause:
        return Diagnosis("shared store", False, str(cause))
    return Diagnosis("shared store", True, url if exists else f"{url}, which the first run creates")


def _datasets(root: Path) -> list[Diagnosis]:
    findings = []
    for name in registry.names("dataset"):
        try:
            problems = registry.load("dataset", name)().check(root)
        except PrivbenchError as cause:
            problems = [str(cause)]
        detail, command = problems[0] if problems else "complete", f"`privbench data prepare {name}`"
        if problems and command not in detail:
            detail += f"; run {command}"
        findings.append(Diagnosis(f"data set {name}", not problems, detail))
    return findings


def _weights() -> list[Diagnosis]:
    """Weights that `privbench weights ls` lists."""
    findings = []
    for name, using in users().items():
        problem = named.problem(name)
        enables = " and the ".join(f"{'pretrained ' * (kind == 'network')}{kind} {user}" for kind, user, _ in using)
        detail = f"would enable the {enables}: {problem}" if problem else str(named.path_of(name))
        findings.append(Diagnosis(f"weights {name}", problem is None, detail))
    return findings


def _components() -> list[Diagnosis]:
    findings = []
    for kind in registry.KINDS:
        broken = []
        for name in registry.names(kind):
            try:
                registry.load(kind, name)
            except PrivbenchError as cause:
                broken.append(str(cause))
        count = len(registry.names(kind)) - len(broken)
        findings.append(Diagnosis(f"{kind}s", not broken, "; ".join([f"{count} load", *broken])))
    return findings
