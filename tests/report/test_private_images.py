"""Tests of the pictures of reconstructions above private images."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import samples
from PIL import Image
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.pipeline import record_artifacts
from privbench.benchmark.pipeline.record_artifacts import Reconstructions
from privbench.benchmark.records.picture import TILE
from privbench.benchmark.report.html import private_images

RECORD = samples.make_record()


def flat(*values: int) -> np.ndarray:
    """One image of 8 x 8 equal pixels per value."""
    return np.stack([np.full((1, 8, 8), value, np.uint8) for value in values])


def rows(content: bytes, count: int) -> list[list[int]]:
    """The middle pixel of each tile of a grid."""
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    step = TILE + 4
    down = [pixels.shape[0] - (2 - row) * step + TILE // 2 for row in range(2)]
    return [[int(pixels[y, 4 + column * step + TILE // 2]) for column in range(count)] for y in down]


def use_reconstructions(monkeypatch, made: Reconstructions) -> None:
    monkeypatch.setattr(record_artifacts, "reconstructions", lambda record, store: made)


def test_a_label_is_compared_with_its_nearest_private_training_image(monkeypatch):
    labels = torch.tensor([3, 3, 7, 7])
    train = Images(torch.tensor(flat(10, 90, 50, 250)), labels)
    loads = []
    component = SimpleNamespace(part=lambda part, root: loads.append((part, root)) or train)
    cell = SimpleNamespace(dataset=SimpleNamespace(identity=lambda: {"name": "digits"}, component=component))
    monkeypatch.setattr(record_artifacts, "cell_of", lambda record: cell)
    use_reconstructions(monkeypatch, Reconstructions("labels", (3, 7), flat(60, 60)))
    second = samples.make_record(seed=1)
    found = private_images.private_pictures([RECORD, second], None, Path("data"))
    assert rows(found[RECORD.key], 2) == [[60, 60], [90, 50]]
    assert found[second.key] == found[RECORD.key]
    assert loads == [("private_train", Path("data"))]


def test_single_images_are_compared_with_the_originals(monkeypatch):
    use_reconstructions(monkeypatch, Reconstructions("items", (4, 9), flat(1, 2)))
    monkeypatch.setattr(record_artifacts, "originals", lambda records, items, root: flat(*(10 * key for key in items)))
    found = private_images.private_pictures([RECORD], None, Path("data"))
    assert rows(found[RECORD.key], 2) == [[1, 2], [40, 90]]


def test_missing_evidence_is_reported_and_other_failures_are_raised(monkeypatch):
    def gone(record, store):
        raise MissingDataError("the evidence is not in the store")

    monkeypatch.setattr(record_artifacts, "reconstructions", gone)
    assert private_images.private_pictures([RECORD], None, Path()) == {RECORD.key: "the evidence is not in the store"}

    def broken(record, store):
        raise ZeroDivisionError

    monkeypatch.setattr(record_artifacts, "reconstructions", broken)
    with pytest.raises(ZeroDivisionError):
        private_images.private_pictures([RECORD], None, Path())
