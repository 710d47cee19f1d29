"""A session: the store, data and device that stages run with."""

from pathlib import Path

import torch

from ..access.open import TargetSource
from ..core.canonical import canonical
from ..core.config import Part
from ..core.evidence import Images
from ..core.seeds import derive
from ..errors import CorruptArtifactError
from ..networks.classifiers.network import Network
from ..store.manifest import Artifact
from ..store.store import Store
from ..training.context import Context
from ..training.progress import Progress
from .cell import Cell, Choice
from .failures import Threads
from .plan import JUDGES, Stage
from .trained_models import load_target, untrained_protocol


class Session:
    """The place where stages run.

    Args:
        store: holds artifacts.
        data_root: the data folder.
        device: computes.
        progress: receives every training step.
    """

    def __init__(self, store: Store, data_root: Path, device: torch.device, progress: Progress | None = None) -> None:
        self.store = store
        self.data_root = data_root
        self.device = device
        self.progress = progress
        #: Number of times that the running stage was restarted with half the images at once, after memory ran out.
        self.batch_halvings = 0
        self.threads = Threads()
        self._images: dict[str, Images] = {}
        self._context: Context | None = None
        self._targets: dict[str, Network] = {}
        self._verified: set[str] = set()

    def images(self, dataset: Choice, part: Part) -> Images:
        """Return one part of a data set; it is read once."""
        key = canonical([dataset.identity(), part])
        if key not in self._images:
            self._images[key] = dataset.component.part(part, self.data_root)
        return self._images[key]

    def artifact(self, stage: Stage, role: str) -> Artifact:
        """Return the artifact that a stage reads in a role; roles are named after the kinds of stages.

        Raises:
            CorruptArtifactError: it is no longer in the store.
        """
        found = self.store.find(role, stage.inputs[role])
        if found is None:
            raise CorruptArtifactError(f"{stage.title} needs a {role} that is no longer in the store; run it again")
        return found

    def target(self, artifact: Artifact, cell: Cell) -> Network:
        """Return the trained target of a cell; the running stage loads and verifies it once.

        Raises:
            CorruptArtifactError: its weights do not fit, or its predictions are not those that were stored.
        """
        if artifact.key not in self._targets:
            self._targets[artifact.key] = self._load_target(artifact, cell)
        return self._targets[artifact.key]

    def target_source(self, artifact: Artifact, cell: Cell) -> TargetSource:
        """Return what another process needs to make the target of a cell; the running stage verifies it once.

        No reference to the verified network is kept, so that an attack finds none in this process.

        Raises:
            CorruptArtifactError: as for `target`.
        """
        protocol = cell.dataset.component.protocol
        if artifact.key not in self._verified:
            self._load_target(artifact, cell)
        rebuild = {
            "defense": cell.defense.name,
            "fields": cell.defense.component.model_dump(mode="json"),
            "protocol": untrained_protocol(protocol).model_dump(mode="json"),
        }
        return TargetSource(rebuild, lambda: artifact.tensors("network"), protocol)

    def _load_target(self, artifact: Artifact, cell: Cell) -> Network:
        network = load_target(artifact, cell, self.images(cell.dataset, "private_test"), self.device)
        self._verified.add(artifact.key)
        return network

    def context(self, stage: Stage) -> Context:
        """Return what the stage's component works with."""
        self._context = Context(
            stage.cell.dataset.component.protocol,
            self.device,
            derive(0 if stage.kind in JUDGES else stage.cell.seed, stage.key),
            self.store.checkpoint(stage.kind, stage.key),
            self.progress,
            lambda: self.images(stage.cell.dataset, "public"),
            self.batch_halvings,
            (lambda: self.images(stage.cell.dataset, "private_val")) if stage.kind == "target" else None,
        )
        return self._context

    def can_halve(self) -> bool:
        """Return whether the stage that ran would send fewer images at once if it started again."""
        return self._context is not None and self._context.can_halve

    def forget(self) -> None:
        """Release what the stage that ran worked with."""
        self._context = None
        self._targets.clear()
        self._verified.clear()
