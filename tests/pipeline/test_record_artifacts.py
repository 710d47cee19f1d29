"""What a record's artifacts are taken from the store for is about the results behind the record."""

from pathlib import Path

import pytest
import torch
from helpers.samples import make_record
from privbench.benchmark.errors import IncompatibleRecordError, MissingDataError
from privbench.benchmark.pipeline.record_artifacts import artifact, reconstructions
from privbench.benchmark.records.record import Record
from privbench.benchmark.store.manifest import Artifact
from privbench.benchmark.store.store import Store

KEY = "a" * 64


def stored(store: Store, level: int) -> Artifact:
    tensors = {"pixels": torch.full((1, 1, 2, 1, 4, 4), level, dtype=torch.uint8), "labels": torch.tensor([0, 3])}
    return store.write("evidence", KEY, tensors={"ClassReconstructions": tensors}, info={"seconds": level})


def record_of(found: Artifact) -> Record:
    return make_record(artifacts={"evidence": {"key": found.key, "digest": found.digest}})


def test_an_artifact_that_was_replaced_under_its_key_is_refused(tmp_path: Path) -> None:
    """Computed again on another machine, it may hold other images than the record's scores are about."""
    store = Store(tmp_path / "store")
    record = record_of(stored(store, 7))
    assert artifact(record, "evidence", store).key == KEY
    assert reconstructions(record, store).of([3]).tolist() == [[[[7] * 4] * 4]]
    store.discard("evidence", KEY)
    other = record_of(stored(store, 8))
    with pytest.raises(IncompatibleRecordError, match=r"the evidence of .* differs from the one behind the record"):
        reconstructions(record, store)
    assert reconstructions(other, store).keys == (0, 3)
    store.discard("evidence", KEY)
    with pytest.raises(MissingDataError, match=r"the evidence of .* is not in the store"):
        artifact(record, "evidence", store)
    with pytest.raises(MissingDataError, match="names no target"):
        artifact(record, "target", store)
