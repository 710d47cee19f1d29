"""Data and conditions of the checks: a few digits as classes or attributes, determinism, interruptions."""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .. import registry
from ..contracts import Dataset
from ..core.canonical import digest
from ..core.config import Part, Protocol, Recipe, Task, setting
from ..core.evidence import Images
from ..networks.classifiers.network import Network
from ..pipeline.trained_models import predict
from ..store.checkpoint import Checkpoint
from ..store.store import Store
from ..training.context import Context, Step
from ..training.state import State

T = TypeVar("T")
CPU = torch.device("cpu")
#: Distance between the digits that are taken: one in twelve.
STRIDE = 12
#: Binary digits of a label, the attributes.
BITS = 3


class Sample(Dataset):
    """Every twelfth of scikit-learn's digits, resized to the image that a component needs, as classes or attributes.

    The attributes of a digit are the three binary digits of its label.
    """

    judge: Recipe = setting(Recipe(max_steps=2, batch_size=16), "training of the judge", stages=("judge",))
    second_judge: Recipe = setting(
        Recipe(max_steps=2, batch_size=16), "training of the second", stages=("second_judge",)
    )
    negatives: int = setting(2, "calibrated negatives per attacked label", stages=("negatives",), ge=1)
    task: Task = setting("classes", "task of the target")
    image: tuple[int, int, int] = setting((1, 32, 32), "channels, height, width")
    target_network: str = setting("mcnn", "name in `privbench list networks`")

    @property
    def protocol(self) -> Protocol:
        """The protocol of the digits, with fewer draws, trials and labels."""
        changes: dict[str, Any] = {
            "name": "sample",
            "task": self.task,
            "image": self.image,
            "target_network": self.target_network,
            "draws": 2,
            "trials": 1,
            "attacked": 2,
            "reference": 4,
            "observed": 4,
        }
        if self.task == "attributes":
            changes |= {"classes": BITS, "attributes": tuple(f"bit {i}" for i in range(BITS)), "attacked": 1}
        found: Protocol = registry.load("dataset", "digits")().protocol.model_copy(update=changes)
        return found

    def load(self, part: Part, root: Path = Path()) -> Images:
        """Read one part; `root` is not read."""
        images = _digits(part)
        pixels = images.pixels.expand(-1, self.image[0], -1, -1)
        if pixels.shape[-2:] != self.image[1:]:
            pixels = functional.interpolate(pixels, size=self.image[1:])
        labels = images.labels
        if self.task == "classes" or labels is None or not part.startswith("private"):
            return Images(pixels.clone(), None if labels is None else labels.clone())
        return Images(pixels.clone(), attributes=(labels[:, None] >> torch.arange(BITS) & 1).bool())


@functools.cache
def _digits(part: Part) -> Images:
    images: Images = registry.load("dataset", "digits")().load(part, Path())
    return images.select(torch.arange(0, len(images), STRIDE))


@contextlib.contextmanager
def conditions(noise: int = 0) -> Iterator[None]:
    """Use deterministic algorithms, and seed the global generators, on which no result may depend, with `noise`.

    Everything is restored afterwards.
    """
    before = torch.are_deterministic_algorithms_enabled()
    python, state = random.getstate(), np.random.get_state()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)
            random.seed(noise)
            np.random.seed(noise)
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        random.setstate(python)
        np.random.set_state(state)


class _KilledError(BaseException):
    """The end of a process that is killed; a component must not catch it."""


class _KillingContext(Context):
    """A context that kills the stage once in the middle of every loop."""

    def __init__(self, context: Context, checkpoint: Checkpoint, killed: set[str]) -> None:
        super().__init__(
            context.protocol,
            context.device,
            context.seed,
            checkpoint,
            public=context.public,
            validation=context.validation,
        )
        self._killed = killed

    def loop(self, name: str, steps: int, state: State, step: Step) -> None:
        middle = max(1, steps // 2)

        def killing_step(i: int, generator: torch.Generator) -> dict[str, Tensor]:
            if i == middle:
                self.save(name, i, state)
                self._killed.add(name)
                raise _KilledError
            return dict(step(i, generator))

        super().loop(name, steps, state, step if name in self._killed else killing_step)


def interrupted(context: Context, work: Callable[[Context], T], folder: Path) -> T:
    """Run a stage that is killed once in the middle of every loop and resumed from its checkpoint.

    Args:
        context: of the stage.
        work: the stage.
        folder: for its checkpoints.
    """
    checkpoint = Store(folder).checkpoint("target", digest([str(context.seed)]))
    killed: set[str] = set()
    while True:
        before = len(killed)
        try:
            return work(_KillingContext(context, checkpoint, killed))
        except _KilledError:
            assert len(killed) > before


def logits(network: Network, images: Images) -> Tensor:
    """Logits of images, with the network's noise seeded as in a run."""
    return predict(network, images.pixels, CPU, 1)


def of_one_class(images: Images) -> Images:
    """The images with the first image's class or attributes."""
    if images.labels is not None:
        return images.select(images.labels == images.labels[0])
    assert images.attributes is not None
    return images.select((images.attributes == images.attributes[0]).all(1))
