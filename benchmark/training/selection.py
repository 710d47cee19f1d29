"""Selection of the network that a training keeps, by its accuracy on the validation images."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.config import Kept
from ..core.evidence import Images
from ..core.seeds import derive, seed_layers
from ..networks.classifiers.network import Network
from .batches import batches
from .optimisation import task_loss
from .state import State

#: Looks at the validation images in a training, at least; one an epoch in a long one.
LOOKS = 10
#: Images per forward pass of a look; part of what makes a look at a stochastic network repeatable.
_CHUNK = 256
#: Names of the two series in the curves of the loop.
ACCURACY, LOSS = "validation accuracy", "validation loss"

#: A series of a loop by name: `[[step, value], ...]`.
Curve = dict[str, list[list[float]]]


class Selection:
    """Looks at the validation images during a loop, and keeps the best network so far.

    The step of a loop calls `look` last; `finish` leaves the chosen network in place. The best network has the highest
    accuracy, at equal accuracy the lower cross-entropy, and then the earlier step. A look happens once an epoch, at
    least `LOOKS` times in a training, and after the last step. A look takes at most as many images, evenly spaced, as
    the training took since the one before, so that looking costs less than half as much as training.

    The best network is in `state`, and what was seen is in the curves of the loop. Both are part of a checkpoint, so
    that a resumed loop chooses the same network.

    Args:
        network: that is trained.
        images: the validation images, with their truth as `labels`; possibly none.
        kept: `best`, or `last` for the network of the last step. Without validation images it is always the last.
        steps: of the loop.
        steps_per_epoch: of the loop.
        batch_size: images per step.
        curve: returns the curves of the loop, to which two series are added.
        device: of the network.
        seed: of the noise that a stochastic network draws at a look.

    Note:
        The released code of BiDO chooses the epoch by the accuracy on the test images. Its paper says validation images
        (section 4.1), as here.
    """

    def __init__(
        self,
        network: Network,
        images: Images,
        kept: Kept,
        *,
        steps: int,
        steps_per_epoch: int,
        batch_size: int,
        curve: Callable[[], Curve],
        device: torch.device,
        seed: int,
    ) -> None:
        self._network, self._steps, self._curve, self._device, self._seed = network, steps, curve, device, seed
        self._every = max(1, min(steps_per_epoch, steps // LOOKS))
        count = min(len(images), batch_size * self._every)
        self._images = images.select(torch.arange(count) * len(images) // max(1, count))
        self._best = copy.deepcopy(network) if kept == "best" and count else None
        #: What the loop must have in its state.
        self.state: State = {} if self._best is None else {"best": self._best}

    def look(self, i: int) -> None:
        """Measure the network after step `i`, if it is time to, and keep it if it is the best so far."""
        last = i + 1 == self._steps
        if not len(self._images) or not (last or (i + 1) % self._every == 0):
            return
        accuracy, loss = self._measure(i)
        if not math.isfinite(loss):
            return
        before = self._looks()
        if self._best is not None and (not before or (accuracy, -loss) > max(before)[:2]):
            self._best.load_state_dict(self._network.state_dict())
        for name, value in ((ACCURACY, accuracy), (LOSS, loss)):
            self._curve().setdefault(name, []).append([i, value])

    def finish(self) -> dict[str, str | int | float]:
        """Put the chosen network in place; return what was kept, after how many steps, and how it was measured."""
        looks = self._looks()
        if not looks:
            return {"kept": "last", "step": self._steps, "steps": self._steps, "validation_images": 0}
        if self._best is not None:
            self._network.load_state_dict(self._best.state_dict())
        accuracy, minus_loss, minus_step = max(looks) if self._best is not None else looks[-1]
        return {
            "kept": "best" if self._best is not None else "last",
            "step": 1 - int(minus_step),
            "steps": self._steps,
            "validation_accuracy": accuracy,
            "validation_loss": -minus_loss,
            "validation_images": len(self._images),
        }

    def _looks(self) -> list[tuple[float, float, float]]:
        """Return what was seen so far, in order; the maximum is the best look."""
        accuracies, losses = (self._curve().get(name, []) for name in (ACCURACY, LOSS))
        return [(accuracy, -loss, -i) for (i, accuracy), (_, loss) in zip(accuracies, losses, strict=True)]

    @torch.no_grad()
    def _measure(self, i: int) -> tuple[float, float]:
        """Return accuracy and mean cross-entropy in nats; of attributes, the means over images and attributes."""
        network, right, loss = self._network.eval(), 0.0, 0.0
        seed_layers(self._device, derive(self._seed, i))
        for x, y in batches(self._images, _CHUNK, self._device):
            assert y is not None
            logits = network.logits(x)
            right += float(_right(logits, y).double().sum())
            loss += float(task_loss(logits, y)) * len(y)
        network.train()
        return right / len(self._images), loss / len(self._images)


def _right(logits: Tensor, y: Tensor) -> Tensor:
    """Share of right decisions for each image: 0 or 1 for classes, the share of attributes otherwise."""
    return ((logits > 0) == y).float().mean(1) if y.dtype == torch.bool else (logits.argmax(1) == y).float()
