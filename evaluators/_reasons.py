"""Reasons why a score is undefined or unavailable, shared by the evaluators."""

from torch import Tensor

from ..benchmark.core.config import Protocol
from ..benchmark.errors import MissingDataError
from ..benchmark.networks.weights import named

NO_RECONSTRUCTIONS = "there are no reconstructions"
NO_TEST_IMAGES = "there are no test images"


def not_finite(x: Tensor, what: str) -> str | None:
    """Reason why rows `N D` cannot be scored; `None` if all of them are finite."""
    bad = int((~x.isfinite().all(1)).sum())
    return f"{bad} of {len(x)} images have {what} that are not finite" if bad else None


def needs_classes(what: str, protocol: Protocol) -> str | None:
    """Reason why `what` is unavailable for attribute tasks; `None` for class tasks."""
    return None if protocol.task == "classes" else f"{what} needs class labels and {protocol.id} has attributes"


def needs_weights(what: str, embedder: str) -> str | None:
    """Reason why `what` is unavailable without the weights of `embedder`; `None` if they are here."""
    try:
        named.files_of("embedder", embedder)
    except MissingDataError:  # its message may name a folder of this machine, and records are shared
        return f"{what} needs the weights of {embedder}, which are missing or damaged; run `privbench weights ls`"
    return None
