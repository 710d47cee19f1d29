"""Pictures of reconstructions above private images, for reports that request them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.canonical import canonical
from ...errors import PrivbenchError
from ...pipeline import record_artifacts
from ...records.picture import grid_png
from ...records.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...core.evidence import Images
    from ...pipeline.record_artifacts import Reconstructions
    from ...store.store import Store

#: Number of reconstructions of a cell, evenly spaced among all.
_COLUMNS = 10


def private_pictures(records: Iterable[Record], store: Store, data: Path) -> dict[str, bytes | str]:
    """Make a PNG of reconstructions above private images for each record, or give the reason why there is none; by key.

    An attack on single images is compared with the originals. For an attack on classes, the first draw of each label is
    compared with the private training image of that label that has the smallest mean squared difference in pixels.

    Args:
        records: whose evidence is shown.
        store: contains the evidence.
        data: the data folder.
    """
    parts: dict[tuple[str, str], Images] = {}
    pictures: dict[str, bytes | str] = {}
    for record in records:
        try:
            pictures[record.key] = _picture(record, store, data, parts)
        except PrivbenchError as problem:
            pictures[record.key] = str(problem)
    return pictures


def _picture(record: Record, store: Store, data: Path, parts: dict[tuple[str, str], Images]) -> bytes:
    import numpy as np

    made = record_artifacts.reconstructions(record, store)
    keys = record_artifacts.columns([record], [made], _COLUMNS)
    if made.about == "items":
        private = record_artifacts.originals([record], keys, data)
    else:
        dataset = record_artifacts.cell_of(record).dataset
        part = (canonical(dataset.identity()), "private_train")
        if part not in parts:
            parts[part] = dataset.component.part("private_train", data)
        private = _nearest_images(made, keys, parts[part])
    labels = [str(key) if made.about == "labels" else "" for key in keys]
    return grid_png(np.stack([made.of(keys), private]), labels)


def _nearest_images(made: Reconstructions, keys: list[int], train: Images) -> NDArray[np.uint8]:
    """The training image of each label with the smallest squared difference to the reconstruction of that label."""
    import numpy as np

    assert train.labels is not None
    pixels, labels = train.pixels.numpy(), train.labels.numpy()
    nearest = []
    for key, image in zip(keys, made.of(keys), strict=True):
        candidates = pixels[labels == key]
        difference = (candidates.astype(np.float32) - image.astype(np.float32)).reshape(len(candidates), -1)
        nearest.append(candidates[np.einsum("nd,nd->n", difference, difference).argmin()])
    return np.stack(nearest)
