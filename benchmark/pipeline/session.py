"""A session: the store, data and device that stages run with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..core.canonical import canonical
from ..core.config import Part
from ..core.evidence import Images
from ..core.seeds import derive
from ..errors import CorruptArtifactError
from ..store.manifest import Artifact
from ..store.store import Store
from ..training.batches import Augmentation
from ..training.context import Context
from ..training.progress import Progress
from .cell import Choice
from .failures import Threads
from .plan import Stage

#: How the images of each judge are augmented where those of the target are; digits have no mirror images.
_JUDGES: Mapping[str, Augmentation] = {"judge": "flip", "second": "crop_flip"}


class Session:
    """Where stages run.

    Args:
        store: holds artifacts.
        data_root: the data folder.
        device: where to compute.
        progress: told of every training step.
    """

    def __init__(self, store: Store, data_root: Path, device: torch.device, progress: Progress | None = None) -> None:
        self.store = store
        self.data_root = data_root
        self.device = device
        self.progress = progress
        #: How often the stage that runs was begun again because memory ran out; it sends fewer images at once.
        self.batch_halvings = 0
        self.threads = Threads()
        self._images: dict[str, Images] = {}
        self._context: Context | None = None

    def images(self, dataset: Choice, part: Part) -> Images:
        """One part of a data set, read once."""
        key = canonical([dataset.identity(), part])
        if key not in self._images:
            self._images[key] = dataset.component.load(part, self.data_root)
        return self._images[key]

    def artifact(self, stage: Stage, role: str) -> Artifact:
        """The artifact that a stage reads in a role; roles are named after the kinds of stages."""
        found = self.store.find(role, stage.inputs[role])
        if found is None:
            raise CorruptArtifactError(f"{stage.title} needs a {role} that is no longer in the store; run it again")
        return found

    def context(self, stage: Stage) -> Context:
        """What the stage's component works with."""
        self._context = Context(
            stage.cell.dataset.component.protocol,
            self.device,
            derive(0 if stage.kind in _JUDGES else stage.cell.seed, stage.key),
            self.store.checkpoint(stage.kind, stage.key),
            self.progress,
            lambda: self.images(stage.cell.dataset, "public"),
            self.batch_halvings,
        )
        return self._context

    def can_halve(self) -> bool:
        """Whether the stage that ran would send fewer images at once if it began again."""
        return self._context is not None and self._context.can_halve

    def forget(self) -> None:
        """Let go of what the stage that ran worked with."""
        self._context = None
