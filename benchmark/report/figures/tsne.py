"""Encodings behind records, as points in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidConfigurationError
from ...pipeline import record_artifacts
from ...records.record import Record
from .image_figures import Cloud, Group, groups_of_classes, groups_of_signs
from .labels import labels

if TYPE_CHECKING:
    from ...pipeline.session import Session

#: Fewer points have no neighbourhood to show.
LEAST = 10
#: Neighbours that count for a point, van der Maaten and Hinton's usual choice.
PERPLEXITY = 30.0
#: Principal components that distances are computed in.
COMPONENTS = 50
#: Features that are held in float64 at a time.
_BLOCK = 8192


def clouds(
    records: Sequence[Record], session: Session, attributes: Sequence[str], layer: str | None, seed: int
) -> tuple[list[Cloud], list[Group]]:
    """What a figure shows of encodings of private test images.

    Args:
        records: of one protocol.
        session: has their targets and reads the data set.
        attributes: at most two, to colour by; without any, see `recall.attributes`. Class tasks are coloured by label.
        layer: the cut layer; by default each attack's.
        seed: of the optimiser.

    Raises:
        PrivbenchError: a target is not in the store, or an attribute or layer is unknown.
    """
    record_artifacts.require_one_protocol(records)
    names: tuple[str, ...] = ()
    drawn: list[tuple[str, NDArray[np.float64], NDArray[np.int64]]] = []
    for record in records:
        cell = record_artifacts.cell_of(record)
        task = cell.dataset.component.protocol.task
        if task == "classes" and attributes:
            raise InvalidConfigurationError(
                f"expected no --attribute for {cell.dataset.name}, whose encodings are coloured by label, got "
                f"{', '.join(attributes)}"
            )
        found = record_artifacts.encodings(record, session, layer)
        if task == "classes":
            kinds = session.images(cell.dataset, "private_test").truth(task)[found.items].numpy()
        else:
            names, values = record_artifacts.attributes(record, attributes, found.items, session)
            kinds = np.array([2, 1] if len(names) == 2 else [1]) @ values.T.astype(np.int64)
        cut = layer or cell.attack.component.cut_layer or "last latent"
        note = f"{cut}, {found.z[0].numel():,} values, {len(found.z):,} images"
        drawn.append((note, tsne(found.z.numpy(), seed), kinds))
    groups, places = _groups(names, [kinds for _, _, kinds in drawn])
    told = zip(labels(records), drawn, places, strict=True)
    return [Cloud(title, note, points, kinds) for title, (note, points, _), kinds in told], groups


def _groups(names: Sequence[str], kinds: Sequence[NDArray[np.int64]]) -> tuple[list[Group], list[NDArray[np.int64]]]:
    """The groups, and the group of each point: signs of attributes are groups already, labels are put in order."""
    if names:
        return groups_of_signs(names), list(kinds)
    known = sorted({int(label) for each in kinds for label in each})
    groups = groups_of_classes(known)
    others = len(groups) - 1
    return groups, [np.minimum(np.searchsorted(known, each), others) for each in kinds]


def tsne(z: NDArray[np.floating[Any]], seed: int = 0) -> NDArray[np.float64]:
    """Embed encodings in the plane so that neighbours stay neighbours; equal input gives equal points.

    Args:
        z: `N ...`, finite, N at least 10.
        seed: of the optimiser.

    Returns:
        `N 2`. Axes, distances between clusters and their sizes mean nothing.

    Raises:
        InvalidConfigurationError: there are too few encodings, or they are not finite.

    References:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008,
        https://jmlr.org/papers/v9/vandermaaten08a.html.

    Note:
        Xiao et al. name no settings for Figure 4; here perplexity is 30 (a third of N - 1 if that is less), after
        the first 50 principal components, as in the reference.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    flat = np.asarray(z).reshape(len(z), -1)
    if len(flat) < LEAST:
        raise InvalidConfigurationError(f"expected at least {LEAST} encodings to embed, got {len(flat)}")
    if not np.isfinite(flat).all():
        raise InvalidConfigurationError(
            "expected finite encodings to embed, got infinite ones or nan; the target broke"
        )
    # Sums of several threads come in no fixed order.
    with threadpool_limits(1):
        points = _principal(flat)
        method = TSNE(
            perplexity=min(PERPLEXITY, (len(flat) - 1) / 3),
            init="pca" if points.any() else "random",
            learning_rate="auto",
            random_state=seed,
            n_jobs=1,
        )
        embedded: NDArray[np.float64] = method.fit_transform(points).astype(np.float64)
    return embedded


def _principal(flat: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The first principal components, of unit variance together; zeros where all rows are equal."""
    gram = np.zeros((len(flat), len(flat)))
    for begin in range(0, flat.shape[1], _BLOCK):
        block = flat[:, begin : begin + _BLOCK].astype(np.float64)
        block -= block.mean(0)
        gram += block @ block.T
    variance = float(np.trace(gram)) / len(flat)
    if variance <= 1e-20 * float(np.abs(flat).max()) ** 2:
        return np.zeros((len(flat), 2))
    values, vectors = np.linalg.eigh(gram / variance)
    components: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0)))[:, ::-1][:, :COMPONENTS]
    return components
