"""Tests of the records in this repository: valid, complete, without paths of a machine.

They have no pictures that resemble photographs of people.
"""

from pathlib import Path

from privbench.benchmark.analysis.record_set import load_records

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_committed_records_are_sound() -> None:
    records = load_records(RESULTS, strict=True)
    assert len(records) >= 4
    for record, path in zip(records.items, records.paths, strict=True):
        assert path.stem == record.key
        assert record.artifacts.keys() >= {"target", "evidence", "scores"}
        assert record.cell.budget == "smoke" or all(score.value is not None for score in record.scores.values())
        assert "/home/" not in record.text()
        assert "/root/" not in record.text()
        pictured = record.picture is not None and record.cell.dataset.name != "celeba_attributes_subset"
        assert bool(records.picture(record)) == pictured
