"""A submission holds the results that its records are about, and no others."""

import shutil
from pathlib import Path

import pytest
import torch
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.errors import IncompatibleRecordError
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.store.store import Store
from privbench.benchmark.submissions.bundle import write_submission


@pytest.mark.parametrize(
    ("role", "group", "name"),
    [
        ("evidence", "ClassReconstructions", "pixels"),
        ("target", "predictions", "logits"),
        ("negatives", "Negatives", "pixels"),
    ],
)
def test_an_artifact_that_was_replaced_under_its_key_is_not_submitted(
    author: Path, tmp_path: Path, role: str, group: str, name: str
) -> None:
    records = load_records(author / "results")
    store = Store(Path(shutil.copytree(author / "store", tmp_path / "store")))
    key = records.items[0].artifacts[role].key
    found = store.find(role, key)
    assert found is not None
    tensors = {each: found.tensors(each) for each in found.groups}
    info, inputs = found.info, found.inputs
    tensors[group][name] = tensors[group][name].flip(0) + 1
    store.discard(role, key)
    store.write(role, key, tensors=tensors, info=info, inputs=inputs)
    with pytest.raises(IncompatibleRecordError, match=f"the {role} of .* in the store differs from the one behind"):
        write_submission(
            records, tmp_path / "new", Session(store, author, torch.device("cpu")), contact="a@b.org", paper="A paper"
        )
    assert not (tmp_path / "new").exists()
