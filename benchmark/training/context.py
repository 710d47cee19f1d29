"""The one training loop: device, seeds, progress, divergence, checkpoint and resume.

Every random number of step `i` comes from a generator seeded by (stage, loop, i), never from a running state. A loop
that resumes at step `i` therefore gives the same bytes as one that was never interrupted, and a checkpoint holds
nothing but networks and optimisers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ... import __version__
from ..core.config import Protocol as DataProtocol
from ..core.config import Recipe
from ..core.evidence import Images
from ..core.seeds import derive, seed_layers
from ..errors import DivergedError
from ..networks.classifiers.network import Network
from .batches import Batches
from .optimisation import learning_rate, make_optimizer, update
from .progress import NullProgress, Progress
from .state import Checkpoint, State, extracted, live, restore, unsound

if TYPE_CHECKING:
    from ..access.views import View

log = logging.getLogger("privbench")
#: A checkpoint is written after this many seconds, and later again if writing one is slow.
CHECKPOINT_SECONDS = 5.0
#: Writing checkpoints may cost this share of the time at most.
CHECKPOINT_SHARE = 0.02
#: Points kept of each training curve.
CURVE_POINTS = 100
#: Of a loop that two of these computed in turn nobody could tell what its bytes come from.
_VERSIONS = {"privbench": __version__, "torch": str(torch.__version__)}

Step = Callable[[int, torch.Generator], Mapping[str, Tensor]]
Loss = Callable[[Network, Tensor, Tensor], Tensor]


class Context:
    """What a stage works with.

    Args:
        protocol: the data set's protocol.
        device: where to compute.
        seed: of the stage; everything random is derived from it.
        checkpoint: of the stage, or `None` to keep nothing.
        progress: told of every step.
        public: reads the public images, for defenses that use them.
        batch_halvings: how often memory ran out, so that an attack sends fewer images at once.
    """

    def __init__(
        self,
        protocol: DataProtocol,
        device: torch.device,
        seed: int,
        checkpoint: Checkpoint | None = None,
        progress: Progress | None = None,
        public: Callable[[], Images] | None = None,
        batch_halvings: int = 0,
    ) -> None:
        self.protocol = protocol
        self.public = public
        self.device = device
        self.seed = seed
        self.progress: Progress = progress or NullProgress()
        #: Facts that go into the artifact, such as the final loss.
        self.notes: dict[str, Any] = {}
        #: Training curves by loop and series: `[[step, value], ...]`.
        self.curves: dict[str, dict[str, list[list[float]]]] = {}
        #: The target as the stage's attack sees it; its queries are counted across interruptions.
        self.view: View | None = None
        #: The largest number that `chunk_size` gave so far; 0 if it was not asked.
        self.images_at_once = 0
        self._batch_halvings = batch_halvings
        self._checkpoint = checkpoint
        self._began = time.monotonic()
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """Time spent on the stage, that before an interruption included."""
        return self._before + time.monotonic() - self._began

    def chunk_size(self, usual: int) -> int:
        """How many images, `usual` by default, an attack may send through networks at once; at least 1.

        When memory runs out, the stage begins again at its last checkpoint with half as many. What the attack returns
        must not depend on the number beyond rounding.
        """
        count = max(1, usual >> self._batch_halvings)
        self.images_at_once = max(self.images_at_once, count)
        return count

    @property
    def can_halve(self) -> bool:
        """Whether fewer images at once are possible."""
        return self.images_at_once > 1

    def generator(self, *name: str | int) -> torch.Generator:
        """A generator on the device, seeded by the stage and `name`."""
        return torch.Generator(self.device).manual_seed(derive(self.seed, *name))

    @contextlib.contextmanager
    def seeded(self, *name: str | int) -> Iterator[None]:
        """Seed PyTorch's global generators inside the block, for layers that know no other, and restore them after."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            seed_layers(self.device, derive(self.seed, *name))
            yield

    def loop(self, name: str, steps: int, state: State, step: Step) -> None:
        """Run `step(i, generator)` for `i` in `range(steps)`, resuming where a checkpoint left off.

        Args:
            name: of the loop, unique in the stage.
            steps: how many.
            state: every module and optimiser that `step` changes, by name.
            step: does one step and returns its losses (scalars) by name.

        Raises:
            DivergedError: a loss, or the state where it is kept and at the end, is infinite or not a number.
        """
        on_device = {key: value.to(self.device) for key, value in state.items() if isinstance(value, nn.Module)}
        assert all(on_device[key] is state[key] for key in on_device)
        before = unsound(live(state))
        done = self._resume(name, state)
        keeper = _LoopMonitor(self, name, steps, state, done, before)
        generator = torch.Generator(self.device)
        self.progress.begin(name, steps, done)
        with self.seeded(name):
            for i in range(done, steps):
                seed_layers(self.device, derive(self.seed, name, i))
                generator.manual_seed(derive(self.seed, name, "generator", i))
                keeper.after(i, step(i, generator))
        self.progress.end()

    def _resume(self, name: str, state: State) -> int:
        found = self._checkpoint.load(name) if self._checkpoint else None
        if found is None:
            return 0
        groups, info = found
        unfit = _unfit(state, groups, info)
        if unfit:
            log.warning("checkpoint of loop %s %s; begun anew", name, unfit)
            return 0
        self.curves[name] = info["curves"]
        self._before = max(self._before, info["seconds"])
        if self.view is not None:
            self.view.resume(info["queries"])
        return int(info["done"])

    def save(self, name: str, done: int, state: State) -> None:
        """Keep the state of loop `name` after `done` steps."""
        if self._checkpoint is None:
            return
        groups, facts = extracted(state)
        info = {
            "done": done,
            "state": facts,
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
        sampler: str | None = None,
        augmentation: str | None = None,
    ) -> None:
        """Train a classifier on labelled images and leave it in evaluation mode.

        Args:
            name: of the loop.
            network: trained in place, moved to the device.
            images: training images with labels.
            recipe: optimiser, schedule, length.
            loss: of `(network, x, y)`.
            sampler: `shuffle` or `identity`; the protocol's by default.
            augmentation: `none`, `flip`, `crop_flip` or `cutout`; the protocol's by default.

        Note:
            The network after the last step is kept. The released code of BiDO keeps the epoch with the best accuracy
            on the test split, which lets the test data choose.
        """
        network.to(self.device).train()
        batches = self.batches(name, images, recipe.batch_size, sampler=sampler, augmentation=augmentation)
        optimizer = make_optimizer(recipe, network)
        steps = recipe.epochs * batches.steps_per_epoch
        steps = min(steps, recipe.max_steps or steps)

        def step(i: int, generator: torch.Generator) -> dict[str, Tensor]:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, i // batches.steps_per_epoch)
            x, y = batches.at(i)
            assert y is not None
            value = loss(network, x, y)
            update(optimizer, value)
            return {"loss": value.detach()}

        self.loop(name, steps, {"network": network, "optimizer": optimizer}, step)
        self.notes["steps"] = steps
        self.notes["epochs"] = steps / batches.steps_per_epoch
        network.eval()

    def batches(
        self, name: str, images: Images, size: int, *, sampler: str | None = None, augmentation: str | None = None
    ) -> Batches:
        """The batches that loop `name` trains a classifier on, with what the target is to say of each image.

        Args:
            name: of the loop.
            images: with labels or attributes, whichever the task asks for.
            size: images per step.
            sampler: `shuffle` or `identity`; the protocol's by default.
            augmentation: `none`, `flip`, `crop_flip` or `cutout`; the protocol's by default.
        """
        return Batches(
            dataclasses.replace(images, labels=images.truth(self.protocol.task)),
            size,
            derive(self.seed, name, "batches"),
            sampler=sampler or self.protocol.sampler,  # type: ignore[arg-type]
            instances=self.protocol.instances,
            augmentation=augmentation or self.protocol.augmentation,  # type: ignore[arg-type]
            device=self.device,
        )


def _unfit(state: State, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> str | None:
    """Why a loop cannot go on from a checkpoint, one phrase; `None` if it can, and the state is put back."""
    poisoned = unsound(groups) - unsound(live(state))
    if poisoned:
        return f"has {min(poisoned)}, which is not finite"
    made = info.get("versions", {})
    if made != _VERSIONS:
        return f"was made with {' and '.join(map(' '.join, made.items())) or 'another version of privbench'}"
    return None if restore(state, groups, info["state"]) else "is of other networks or optimisers"


class _LoopMonitor:
    """Looks after one loop: divergence, curve, progress and checkpoints.

    What was not finite before the loop, such as a mask of infinities, may stay so; `exempt` holds its names.
    """

    def __init__(self, context: Context, name: str, steps: int, state: State, done: int, exempt: set[str]) -> None:
        self._exempt = exempt
        self._context, self._name, self._steps, self._state = context, name, steps, state
        self._curve = context.curves.setdefault(name, {})
        self._interval = max(1, steps // CURVE_POINTS)
        # Reading a loss waits for the device, so on accelerators it is read only now and then.
        self._look = 1 if context.device.type == "cpu" else 25
        self._kept, self._kept_at, self._cost, self._shown = done, time.monotonic(), 0.0, 0.0

    def after(self, i: int, losses: Mapping[str, Tensor]) -> None:
        last = i + 1 == self._steps
        on_curve = i % self._interval == 0 or last
        if not (on_curve or last or i % self._look == 0):
            return
        values = {key: float(value) for key, value in losses.items()}
        self._check(i, values)
        if on_curve:
            for key, value in values.items():
                self._curve.setdefault(key, []).append([i, value])
        now = time.monotonic()
        if now - self._shown > 0.1 or last:
            self._shown = now
            self._context.progress.advance(i + 1, values)
        if last:
            self._check_state(i)
        if now - self._kept_at > max(CHECKPOINT_SECONDS, self._cost / CHECKPOINT_SHARE):
            self._check_state(i)
            self._keep(i + 1)

    def _keep(self, done: int) -> None:
        began = time.monotonic()
        self._context.save(self._name, done, self._state)
        self._kept, self._kept_at = done, time.monotonic()
        self._cost = self._kept_at - began

    def _check(self, i: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(i, f"{key} is {value}")

    def _check_state(self, i: int) -> None:
        """A loss may be finite, and the step that it leads to not."""
        found = unsound(live(self._state)) - self._exempt
        if found:
            raise self._diverged(i, f"{min(found)} is not finite")

    def _diverged(self, i: int, what: str) -> DivergedError:
        kept = f"the last good checkpoint is at step {self._kept}" if self._kept else "no checkpoint was kept"
        return DivergedError(
            f"{self._name} diverged: {what} at step {i + 1} of {self._steps} ({kept}); lower the learning rate or the "
            f"weight of the regulariser"
        )
