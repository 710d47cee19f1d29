"""t-SNE of the encodings that records were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidConfigurationError
from ...pipeline import record_artifacts
from ...records.record import Record
from .image_figures import Embedding, PointGroup, attribute_groups, label_groups
from .labels import record_labels

if TYPE_CHECKING:
    from ...pipeline.session import Session

#: Fewer points have no neighbourhoods to show.
MIN_POINTS = 10
#: Effective number of neighbours of a point; van der Maaten and Hinton use 5 to 50.
PERPLEXITY = 30.0
#: Number of principal components before t-SNE.
COMPONENTS = 50
#: Number of features converted to float64 at a time.
_BLOCK = 8192


def embed_records(
    records: Sequence[Record], session: Session, attributes: Sequence[str], layer: str | None, seed: int
) -> tuple[list[Embedding], list[PointGroup]]:
    """Embed encodings of private test images for a figure.

    Args:
        records: of one protocol.
        session: loads the targets and the data set.
        attributes: at most two, to colour by; by default those of `record_artifacts.attributes`. Class tasks are
            coloured by label.
        layer: the cut layer; by default that of each attack.
        seed: seed of the optimiser.

    Raises:
        PrivbenchError: a target is not in the store, or an attribute or layer is unknown.
    """
    record_artifacts.require_one_protocol(records)
    names: tuple[str, ...] = ()
    embedded: list[tuple[str, NDArray[np.float64], NDArray[np.int64]]] = []
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
            values = session.images(cell.dataset, "private_test").truth(task)[found.items].numpy()
        else:
            names, present = record_artifacts.attributes(record, attributes, found.items, session)
            values = np.array([2, 1] if len(names) == 2 else [1]) @ present.T.astype(np.int64)
        cut = layer or cell.attack.component.cut_layer or "last latent"
        note = f"{cut}, {found.z[0].numel():,} values, {len(found.z):,} images"
        embedded.append((note, tsne(found.z.numpy(), seed), values))
    groups, indices = _groups(names, [values for _, _, values in embedded])
    parts = zip(record_labels(records), embedded, indices, strict=True)
    return [Embedding(title, note, points, index) for title, (note, points, _), index in parts], groups


def _groups(
    names: Sequence[str], values: Sequence[NDArray[np.int64]]
) -> tuple[list[PointGroup], list[NDArray[np.int64]]]:
    """The groups, and the group index of each point: its value for attributes, the rank of its label for classes."""
    if names:
        return attribute_groups(names), list(values)
    known = sorted({int(label) for each in values for label in each})
    groups = label_groups(known)
    others = len(groups) - 1
    return groups, [np.minimum(np.searchsorted(known, each), others) for each in values]


def tsne(z: NDArray[np.floating[Any]], seed: int = 0) -> NDArray[np.float64]:
    """Embed encodings in the plane so that neighbours remain close; equal input gives equal points.

    Args:
        z: `N ...`, finite, N at least 10.
        seed: seed of the optimiser.

    Returns:
        `N 2`. Axes, distances between clusters and sizes of clusters have no meaning.

    Raises:
        InvalidConfigurationError: there are fewer than 10 encodings, or some are not finite.

    References:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008,
        https://jmlr.org/papers/v9/vandermaaten08a.html.

    Note:
        Xiao et al. give no settings for Figure 4; we use the first 50 principal components, as in the reference, and
        perplexity 30, or (N - 1) / 3 if that is smaller.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    flat = np.asarray(z).reshape(len(z), -1)
    if len(flat) < MIN_POINTS:
        raise InvalidConfigurationError(f"expected at least {MIN_POINTS} encodings to embed, got {len(flat)}")
    if not np.isfinite(flat).all():
        raise InvalidConfigurationError(
            "expected finite encodings to embed, got infinity or nan; the training of the target diverged"
        )
    # Several threads add in an undefined order, which changes the rounding.
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
    """The first principal components, scaled to a total variance of 1; zeros if all rows are equal."""
    gram = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], _BLOCK):
        block = flat[:, start : start + _BLOCK].astype(np.float64)
        block -= block.mean(0)
        gram += block @ block.T
    variance = float(np.trace(gram)) / len(flat)
    if variance <= 1e-20 * float(np.abs(flat).max()) ** 2:
        return np.zeros((len(flat), 2))
    values, vectors = np.linalg.eigh(gram / variance)
    components: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0)))[:, ::-1][:, :COMPONENTS]
    return components
