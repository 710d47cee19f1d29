"""Targets in this process: the server of a target without its own process, which takes seconds to start."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from privbench.benchmark.access import open as opening
from privbench.benchmark.access import server
from torch import Tensor


class LocalTarget:
    """Answers as `TargetProcess` does; the caller's random numbers stay as they are.

    Args:
        header: target and access, for `access.server`.
        tensors: the target's weights.
    """

    def __init__(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        with torch.random.fork_rng(devices=[]):
            self._server = server.TargetServer(header, tensors)
        self.empty_answer = self._server.empty_answer.clone()

    def send(
        self, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Answer one message."""
        with torch.random.fork_rng(devices=[]):
            answer = server._handle(self._server, header, {name: x.detach() for name, x in (tensors or {}).items()})
        return {"answered": self._server.answered}, {"answer": answer.clone()}

    def close(self) -> None:
        """Forget the target."""
        del self._server


def keep_here(patch: pytest.MonkeyPatch) -> None:
    """Run targets in this process; only for tests of something else than the separation of attack and target."""
    patch.setattr(opening, "TargetProcess", LocalTarget)
