"""Judges that the records of one submission share, with the features that they have computed already."""

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..core.canonical import canonical
from ..core.config import Protocol
from ..networks.judges import Judges
from ..pipeline.trained_models import load_judges
from ..store.manifest import Artifact

#: Results that one function keeps: those of the private images of every label of a large data set fit.
_REMEMBERED = 4096


class SharedJudges:
    """Loads each set of judges once, and features of the same images once: those of private images are in all records.

    Args:
        device: device of the judges.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._found: dict[str, Judges] = {}

    def get(self, artifacts: Mapping[str, Artifact], protocol: Protocol) -> Judges:
        """Return the judges whose artifacts are given, by role."""
        keys = {role: artifact.key for role, artifact in artifacts.items()}
        key = canonical([keys, protocol.model_dump(mode="json")])
        if key not in self._found:
            judges = self._found[key] = load_judges(artifacts, protocol, self._device)
            judges.embeddings = remembered(judges.embeddings)  # type: ignore[method-assign]
            if "judge" in artifacts:
                judge = judges.classifier
                judge.features = remembered(judge.features)  # type: ignore[method-assign]
        return self._found[key]


def remembered(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that remembers its results for equal tensors and texts; other arguments are not remembered."""
    results: dict[tuple[str, ...], Tensor] = {}

    def call(*arguments: Tensor | str, **named: object) -> Tensor:
        if named or not all(isinstance(each, Tensor | str) for each in arguments):
            return function(*arguments, **named)
        key = tuple(each if isinstance(each, str) else _content(each) for each in arguments)
        if key not in results:
            if len(results) >= _REMEMBERED:
                results.clear()
            results[key] = function(*arguments)
        return results[key].clone()

    return call


def _content(values: Tensor) -> str:
    data = values.contiguous().view(-1).numpy().tobytes()
    return f"{values.dtype} {tuple(values.shape)} {hashlib.sha256(data).hexdigest()}"
