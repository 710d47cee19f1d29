"""Whatever strangers give is read, or refused in one sentence: soon, and without a trace elsewhere."""

import tempfile
import time
from pathlib import Path

import pytest
from fuzz_documents import changed_bytes, changed_json, documents
from fuzz_readers import READERS, SECONDS, attempt, confined
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

VALID = documents()
JSON = ["record", "manifest", "zoo", "submission", "export", "finding"]


def _read(name: str, data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        taken = attempt(name, data, Path(folder))
        assert time.process_time() - began < SECONDS
        return taken


def test_every_reader_has_a_document() -> None:
    assert VALID.keys() == READERS.keys()


@pytest.mark.parametrize(
    "name", ["record", "manifest", "matrix", "settings", "selection", "zoo", "tensors", "finding", "archive", "lists"]
)
def test_valid_documents_are_taken(name: str) -> None:
    assert all(_read(name, data) for data in VALID[name])


@pytest.mark.parametrize("name", sorted(READERS))
def test_changed_bytes(name: str) -> None:
    _search(name, st.sampled_from(VALID[name]).flatmap(changed_bytes) | st.binary(max_size=200), 60)


@pytest.mark.parametrize("name", JSON)
def test_changed_json(name: str) -> None:
    _search(name, st.sampled_from(VALID[name]).flatmap(changed_json), 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(READERS))
def test_many_changed_bytes(name: str) -> None:
    _search(name, st.sampled_from(VALID[name]).flatmap(changed_bytes), 5000)


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON)
def test_much_changed_json(name: str) -> None:
    _search(name, st.sampled_from(VALID[name]).flatmap(changed_json), 5000)


def _search(name: str, inputs: st.SearchStrategy[bytes], count: int) -> None:
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def holds(data: bytes) -> None:
        _read(name, data)

    holds()


def test_the_guard_sees_what_is_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(AssertionError, match=r"out\.txt"), confined(tmp_path / "in"):
        (tmp_path / "out.txt").write_text("x")
    with pytest.raises(AssertionError, match=r"os\.mkdir"), confined(tmp_path / "in"):
        (tmp_path / "elsewhere").mkdir()
    with confined(tmp_path / "in"):
        (tmp_path / "in" / "a").write_text("x")
