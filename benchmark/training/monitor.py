"""Monitor of a training loop: divergence, training curve, progress and checkpoints."""

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import DivergedError
from .progress import Progress
from .state import State, current_tensors, non_finite

#: Seconds between two checkpoints, at least.
CHECKPOINT_SECONDS = 5.0
#: Largest share of the time that writing checkpoints may take.
CHECKPOINT_SHARE = 0.02
#: Points of each training curve.
CURVE_POINTS = 100
#: Seconds between two reports of progress, at least.
_PROGRESS_SECONDS = 0.1


class LoopMonitor:
    """Monitor of one loop.

    Tensors that are not finite before the loop, such as a mask of infinities, may stay so.

    Args:
        name: of the loop.
        steps: number of steps.
        state: modules and optimisers of the loop, before a checkpoint is restored.
        progress: receives the progress.
        save: writes a checkpoint after the given number of steps.
        device: device of the networks.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        state: State,
        progress: Progress,
        save: Callable[[int], None],
        device: torch.device,
    ) -> None:
        self._name, self._steps, self._state = name, steps, state
        self._progress, self._save = progress, save
        self._initially_non_finite = non_finite(current_tensors(state))
        self._curve: dict[str, list[list[float]]] = {}
        self._curve_interval = max(1, steps // CURVE_POINTS)
        # Reading a loss waits for the device, so an accelerator's losses are read only every 25 steps.
        self._read_interval = 1 if device.type == "cpu" else 25
        self._saved_step, self._saved_at, self._save_seconds, self._reported_at = 0, time.monotonic(), 0.0, 0.0

    def begin(self, done: int, curve: dict[str, list[list[float]]]) -> None:
        """Start at step `done`; points are appended to `curve`, by loss: `[[step, value], ...]`."""
        self._saved_step, self._saved_at, self._curve = done, time.monotonic(), curve
        self._progress.begin(self._name, self._steps, done)

    def after_step(self, i: int, losses: Mapping[str, Tensor]) -> None:
        """Process the losses of step `i`.

        Raises:
            DivergedError: a loss, or the state before a checkpoint and at the end, is infinite or NaN.
        """
        last = i + 1 == self._steps
        on_curve = i % self._curve_interval == 0 or last
        if not (on_curve or i % self._read_interval == 0):
            return
        values = {key: float(value) for key, value in losses.items()}
        self._check_losses(i, values)
        if on_curve:
            for key, value in values.items():
                self._curve.setdefault(key, []).append([i, value])
        self._report(i, values, last)
        save = time.monotonic() - self._saved_at > max(CHECKPOINT_SECONDS, self._save_seconds / CHECKPOINT_SHARE)
        if save or last:
            self._check_state(i)
        if save:
            self._save_checkpoint(i + 1)

    def _report(self, i: int, values: Mapping[str, float], last: bool) -> None:
        now = time.monotonic()
        if now - self._reported_at > _PROGRESS_SECONDS or last:
            self._reported_at = now
            self._progress.advance(i + 1, values)

    def _save_checkpoint(self, done: int) -> None:
        began = time.monotonic()
        self._save(done)
        self._saved_step, self._saved_at = done, time.monotonic()
        self._save_seconds = self._saved_at - began

    def _check_losses(self, i: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(i, f"{key} is {value}")

    def _check_state(self, i: int) -> None:
        """Check the networks as well: a finite loss can lead to a step that is not."""
        found = non_finite(current_tensors(self._state)) - self._initially_non_finite
        if found:
            raise self._diverged(i, f"{min(found)} is not finite")

    def _diverged(self, i: int, reason: str) -> DivergedError:
        saved = (
            f"the last good checkpoint is at step {self._saved_step}" if self._saved_step else "no checkpoint was kept"
        )
        return DivergedError(
            f"{self._name} diverged: {reason} at step {i + 1} of {self._steps} ({saved}); lower the learning rate or "
            "the weight of the regulariser"
        )
