"""The training loop: device, seeds, checkpoints and resuming.

A generator seeded by (stage, loop, i) gives every random number of step `i`; no generator state is carried over. A loop
that resumes at step `i` therefore gives the same bytes as one that was never interrupted, and a checkpoint contains
only networks, optimisers and training curves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ... import __version__
from ..core.config import Kept, Protocol, Recipe
from ..core.evidence import Images
from ..core.seeds import derive, seed_layers
from ..networks.classifiers.network import Network
from .batches import Augmentation, Batches, Sampler
from .monitor import LoopMonitor
from .optimisation import learning_rate, make_optimizer, update
from .progress import NullProgress, Progress
from .selection import Selection
from .state import Checkpoint, Groups, State, current_tensors, extract, non_finite, restore

if TYPE_CHECKING:
    from ..access.views import View

log = logging.getLogger("privbench")
#: Checkpoints from other versions are not resumed: the result would belong to neither version.
_VERSIONS = {"privbench": __version__, "torch": str(torch.__version__)}

Step = Callable[[int, torch.Generator], Mapping[str, Tensor]]
Loss = Callable[[Network, Tensor, Tensor], Tensor]


class Context:
    """Environment of a stage: protocol, device, seed, checkpoints, and the training loop.

    Args:
        protocol: the data set's protocol.
        device: device of the computation.
        seed: of the stage; all random numbers are derived from it.
        checkpoint: of the stage, or `None` for no checkpoints.
        progress: receives the progress of every loop.
        public: reads the public images, for defenses that use them.
        batch_halvings: how often memory ran out; each halves the number of images processed at once.
        validation: reads the validation images, which choose the network that a training keeps.
    """

    def __init__(
        self,
        protocol: Protocol,
        device: torch.device,
        seed: int,
        checkpoint: Checkpoint | None = None,
        progress: Progress | None = None,
        public: Callable[[], Images] | None = None,
        batch_halvings: int = 0,
        validation: Callable[[], Images] | None = None,
    ) -> None:
        self.protocol = protocol
        self.validation = validation
        self.public = public
        self.device = device
        self.seed = seed
        self.progress: Progress = progress or NullProgress()
        #: Values to store in the artifact, such as the number of steps.
        self.notes: dict[str, Any] = {}
        #: Training curves by loop and series: `[[step, value], ...]`.
        self.curves: dict[str, dict[str, list[list[float]]]] = {}
        #: The view of the target that the attack has; its query counts continue after an interruption.
        self.view: View | None = None
        #: Largest result of `chunk_size` so far; 0 if it was not called.
        self.images_at_once = 0
        self.batch_halvings = batch_halvings
        self._checkpoint = checkpoint
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Time spent on the stage, including the time before an interruption."""
        return self._seconds_before + time.monotonic() - self._began

    def chunk_size(self, usual: int) -> int:
        """Number of images that an attack may process at once: `usual`, or fewer after memory ran out; at least 1.

        When memory runs out, the stage restarts from its last checkpoint with half as many. The result of the attack
        may depend on this number only by rounding.
        """
        count = max(1, usual >> self.batch_halvings)
        self.images_at_once = max(self.images_at_once, count)
        return count

    @property
    def can_halve(self) -> bool:
        """True if the attack can process fewer images at once."""
        return self.images_at_once > 1

    def generator(self, *name: str | int) -> torch.Generator:
        """Make a generator on the device, seeded by the stage and `name`."""
        return torch.Generator(self.device).manual_seed(derive(self.seed, *name))

    @contextlib.contextmanager
    def seeded(self, *name: str | int) -> Iterator[None]:
        """Seed PyTorch's global generators inside the block, for layers that use them, and restore them afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            seed_layers(self.device, derive(self.seed, *name))
            yield

    def loop(self, name: str, steps: int, state: State, step: Step) -> None:
        """Run `step(i, generator)` for `i` in `range(steps)`, resuming from a checkpoint if there is one.

        Args:
            name: of the loop, unique in the stage.
            steps: number of steps.
            state: every module and optimiser that `step` changes, by name.
            step: performs one step and returns its losses (scalars) by name.

        Raises:
            DivergedError: a loss, or the state before a checkpoint and at the end, is infinite or NaN.
        """
        for value in state.values():
            if isinstance(value, nn.Module):
                value.to(self.device)
        monitor = LoopMonitor(name, steps, state, self.progress, lambda done: self.save(name, done, state), self.device)
        start = self._resume(name, state)
        monitor.begin(start, self.curves.setdefault(name, {}))
        generator = torch.Generator(self.device)
        with self.seeded(name):
            for i in range(start, steps):
                seed_layers(self.device, derive(self.seed, name, i))
                generator.manual_seed(derive(self.seed, name, "generator", i))
                monitor.after_step(i, step(i, generator))
        self.progress.end()

    def _resume(self, name: str, state: State) -> int:
        """Restore the checkpoint of loop `name` and return the number of finished steps; 0 without a checkpoint."""
        found = self.load_checkpoint(name)
        if found is None:
            return 0
        groups, info = found
        problem = _restore_checkpoint(state, groups, info)
        if problem:
            log.warning("checkpoint of loop %s %s; restarting the loop", name, problem)
            return 0
        self.curves[name] = info["curves"]
        if self.view is not None:
            self.view.resume(info["queries"])
        return int(info["done"])

    def load_checkpoint(self, name: str) -> tuple[Groups, dict[str, Any]] | None:
        """Return what `save` stored for loop `name`, whose time counts as spent; `None` without a checkpoint."""
        found = self._checkpoint.load(name) if self._checkpoint else None
        if found is not None:
            self._seconds_before = max(self._seconds_before, found[1]["seconds"])
        return found

    def save_checkpoint(self, name: str, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
        """Store the checkpoint of loop `name`, if this stage keeps any."""
        if self._checkpoint is not None:
            self._checkpoint.save(name, groups, info)

    def save(self, name: str, done: int, state: State) -> None:
        """Write a checkpoint of loop `name` after `done` steps."""
        if self._checkpoint is None:
            return
        groups, numbers = extract(state)
        info = {
            "done": done,
            "state": numbers,
            "versions": _VERSIONS,
            "curves": self.curves.get(name, {}),
            "seconds": self.seconds,
            "queries": self.view.queries if self.view is not None else {},
        }
        self._checkpoint.save(name, groups, info)

    def fit(
        self,
        name: str,
        network: Network,
        images: Images,
        recipe: Recipe,
        loss: Loss,
        *,
        sampler: Sampler | None = None,
        augmentation: Augmentation | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Train a classifier on labelled images and leave it in evaluation mode.

        Args:
            name: of the loop.
            network: trained in place, on the device.
            images: training images with labels.
            recipe: optimiser, schedule and length.
            loss: of `(network, x, y)`.
            sampler: as in `batches`.
            augmentation: as in `batches`.
            kept: the network that is kept, as in `selection`; by default that of the last step, without looking at the
                validation images.
        """
        network.to(self.device).train()
        batches = self.batches(name, images, recipe.batch_size, sampler=sampler, augmentation=augmentation)
        optimizer = make_optimizer(recipe, network)
        steps = recipe.epochs * batches.steps_per_epoch
        steps = min(steps, recipe.max_steps or steps)
        chosen = self.selection(name, network, kept, recipe, steps, batches.steps_per_epoch) if kept else None

        def step(i: int, generator: torch.Generator) -> dict[str, Tensor]:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, i // batches.steps_per_epoch)
            x, y = batches.at(i)
            assert y is not None
            value = loss(network, x, y)
            update(optimizer, value)
            if chosen:
                chosen.look(i)
            return {"loss": value.detach()}

        state: State = {"network": network, "optimizer": optimizer, **(chosen.state if chosen else {})}
        self.loop(name, steps, state, step)
        if chosen:
            self.notes["selection"] = chosen.finish()
        self.notes["steps"] = steps
        self.notes["epochs"] = steps / batches.steps_per_epoch
        network.eval()

    def selection(
        self, name: str, network: Network, kept: Kept, recipe: Recipe, steps: int, steps_per_epoch: int
    ) -> Selection:
        """Prepare the choice of the network that loop `name` keeps; call `look` in each step and `finish` at the end.

        Args:
            name: of the loop.
            network: that the loop trains.
            kept: `best` on the validation images, or `last`.
            recipe: of the training.
            steps: of the loop.
            steps_per_epoch: of the loop.
        """
        images = Images(torch.empty(0, *self.protocol.image), torch.arange(0))
        if self.validation:
            images = self.validation()
            images = dataclasses.replace(images, labels=images.truth(self.protocol.task))
        return Selection(
            network,
            images,
            kept,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
            batch_size=recipe.batch_size,
            curve=lambda: self.curves[name],
            device=self.device,
            seed=derive(self.seed, name, "look"),
        )

    def batches(
        self,
        name: str,
        images: Images,
        size: int,
        *,
        sampler: Sampler | None = None,
        augmentation: Augmentation | None = None,
    ) -> Batches:
        """Make the batches that loop `name` trains a classifier on, with the true labels or attributes.

        Args:
            name: of the loop.
            images: with labels or attributes, depending on the task.
            size: images per step.
            sampler: `shuffle` or `identity`; the protocol's by default.
            augmentation: `none`, `flip`, `crop_flip` or `cutout`; the protocol's by default.
        """
        return Batches(
            dataclasses.replace(images, labels=images.truth(self.protocol.task)),
            size,
            derive(self.seed, name, "batches"),
            sampler=sampler or self.protocol.sampler,
            instances=self.protocol.instances,
            augmentation=augmentation or self.protocol.augmentation,
            device=self.device,
        )


def _restore_checkpoint(
    state: State, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]
) -> str | None:
    """Load a checkpoint into `state`; return why that is not possible, or `None`."""
    damaged = non_finite(groups) - non_finite(current_tensors(state))
    if damaged:
        return f"has {min(damaged)}, which is not finite"
    versions = info.get("versions", {})
    if versions != _VERSIONS:
        return f"was made with {' and '.join(map(' '.join, versions.items())) or 'another version of privbench'}"
    return None if restore(state, groups, info["state"]) else "is of other networks or optimisers"
