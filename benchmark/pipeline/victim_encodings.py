"""Encodings of private test images, which an attack on features observes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..access.open import open_view
from ..access.views import FeaturesView
from ..core.evidence import Encodings
from ..core.seeds import derive
from ..store.manifest import Artifact
from .cell import Cell
from .trained_models import CHUNK

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.config import Protocol
    from .session import Session


def observe(cell: Cell, session: Session, target: Artifact, evidence: str, layer: str | None) -> Encodings:
    """Encode evenly spaced private test images; these are the victim's own queries, not the attack's.

    Args:
        cell: whose target it is; its protocol says how many images.
        session: where to compute.
        target: of the cell.
        evidence: key of the evidence made from them; it seeds the noise of a stochastic target.
        layer: the cut layer, `None` for the last latent.
    """
    test = session.images(cell.dataset, "private_test")
    items = items_of(cell.dataset.component.protocol, len(test))
    with open_view(
        "features",
        session.target_source(target, cell),
        device=session.device,
        seed=derive(cell.seed, evidence, "observed"),
        layer=layer,
    ) as victim:
        assert isinstance(victim, FeaturesView)
        z = [victim.features(part.float().div(255)) for part in torch.split(test.pixels[items], CHUNK)]
    return Encodings(torch.cat(z).cpu(), items)


def items_of(protocol: Protocol, test: int) -> Tensor:
    """Return the positions of the `test` private test images that an attack observes, evenly spaced: `int64 N`."""
    count = min(protocol.observed, test)
    return torch.arange(count) * test // max(1, count)
