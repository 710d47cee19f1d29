"""Reasons why a score is undefined or unavailable, shared by the evaluators."""

from torch import Tensor

from ..benchmark.core.config import Protocol
from ..benchmark.errors import MissingDataError
from ..benchmark.networks.weights import named
from ..benchmark.registry import load

NO_RECONSTRUCTIONS = "there are no reconstructions"
NO_TEST_IMAGES = "there are no test images"


def not_finite(x: Tensor, what: str) -> str | None:
    """Reason why rows `N D` cannot be scored; `None` if all of them are finite."""
    bad = int((~x.isfinite().all(1)).sum())
    return f"{bad} of {len(x)} images have {what} that are not finite" if bad else None


def needs_classes(what: str, protocol: Protocol) -> str | None:
    """Reason why `what` is unavailable for attribute tasks; `None` for class tasks."""
    return None if protocol.task == "classes" else f"{what} needs class labels and {protocol.id} has attributes"


def needs_embedder(embedder: str) -> str | None:
    """Reason why a score is unavailable without the files of `embedder`; `None` if they are here.

    It is the same sentence for every score, so that a plan can group them, and names no folder of this machine, since
    records are shared.
    """
    network = load("embedder", embedder)
    if reason := named.reason(network.weights) if network.weights else None:
        return reason
    try:
        network.files()
    except MissingDataError:
        return f"a file of the embedder {embedder} is missing or damaged; run `privbench check embedder {embedder}`"
    return None
