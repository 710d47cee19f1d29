"""Reconstructions above the private images that they are compared with; only for reports that ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.canonical import canonical
from ...errors import PrivbenchError
from ...pipeline import record_artifacts
from ...pipeline.picture import grid_png
from ...records.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...core.evidence import Images
    from ...pipeline.record_artifacts import Reconstructions
    from ...store.store import Store

#: Reconstructions of a cell, evenly spaced among all.
COLUMNS = 10


def find(records: Iterable[Record], store: Store, data: Path) -> dict[str, bytes | str]:
    """By key of record a PNG with reconstructions above private images, or why there is none.

    Of an attack on single images each original; of an attack on classes, for the first draw of each label, the private
    training image of that label that is nearest in pixels (least mean squared difference).

    Args:
        records: whose evidence is looked up.
        store: where evidence is.
        data: the data folder.
    """
    parts: dict[tuple[str, str], Images] = {}
    found: dict[str, bytes | str] = {}
    for record in records:
        try:
            found[record.key] = _picture(record, store, data, parts)
        except PrivbenchError as problem:
            found[record.key] = str(problem)
    return found


def _picture(record: Record, store: Store, data: Path, parts: dict[tuple[str, str], Images]) -> bytes:
    import numpy as np

    made = record_artifacts.reconstructions(record, store)
    keys = record_artifacts.columns([record], [made], COLUMNS)
    if made.about == "items":
        private = record_artifacts.originals([record], "items", keys, data)
    else:
        dataset = record_artifacts.cell_of(record).dataset
        place = (canonical(dataset.identity()), "private_train")
        if place not in parts:
            parts[place] = dataset.component.load("private_train", data)
        private = _nearest(made, keys, parts[place])
    labels = [str(key) if made.about == "labels" else "" for key in keys]
    return grid_png(np.stack([made.of(keys), private]), labels)


def _nearest(made: Reconstructions, keys: list[int], train: Images) -> NDArray[np.uint8]:
    """Of each label the training image with the least squared difference to its reconstruction."""
    import numpy as np

    assert train.labels is not None
    pixels, labels = train.pixels.numpy(), train.labels.numpy()
    chosen = []
    for key, image in zip(keys, made.of(keys), strict=True):
        candidates = pixels[labels == key]
        far = candidates.reshape(len(candidates), -1).astype(np.float32) - image.reshape(1, -1).astype(np.float32)
        chosen.append(candidates[np.einsum("nd,nd->n", far, far).argmin()])
    return np.stack(chosen)
