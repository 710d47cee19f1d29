"""Records of schema 1 still load: reasons get codes, the second judge its present name."""

import json
from pathlib import Path

import pytest
from helpers import samples
from privbench.benchmark.errors import IncompatibleRecordError
from privbench.benchmark.records import schema1
from privbench.benchmark.records.record import SCHEMA, read

HASH = "0" * 64


def old_record() -> dict:
    """A record as release 0.1 wrote it."""
    record = json.loads(samples.make_record("none", "kedmi").text())
    record["schema_version"] = 1
    record["not_run"] = {"ssim": "kedmi gives no PairedReconstructions", "fid_inception": "weights are missing"}
    record["artifacts"] = {"second": {"key": HASH, "digest": HASH}, "target": {"key": HASH, "digest": HASH}}
    record["costs"] = {"second": {"seconds": 1.0}}
    record["curves"] = {"second": {"judge": {"loss": [[0, 1.0]]}}}
    record["judge"] = {"network": "scnn", "second": {"network": "lenet5"}}
    return record


def test_reasons_get_codes_and_the_second_judge_its_name(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old_record()), encoding="utf-8")
    record = read(path)
    assert record.schema_version == SCHEMA == 3
    assert {name: (why.code, why.reason) for name, why in record.not_run.items()} == {
        "ssim": ("not_applicable", "kedmi gives no PairedReconstructions"),
        "fid_inception": ("unavailable", "weights are missing"),
    }
    assert set(record.artifacts) == {"second_judge", "target"}
    assert set(record.costs) == set(record.curves) == {"second_judge"}
    assert record.judge == {"network": "scnn", "second_judge": {"network": "lenet5"}}


def test_a_converted_record_is_written_and_read_as_the_newest_schema(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(old_record()), encoding="utf-8")
    new.write_text(read(old).text(), encoding="utf-8")
    assert json.loads(new.read_text("utf-8"))["schema_version"] == SCHEMA
    assert read(new) == read(old)


@pytest.mark.parametrize("not_run", [["ssim"], {"ssim": 3}, "ssim", {"ssim": None}])
def test_a_damaged_record_of_schema_1_is_named(tmp_path: Path, not_run: object) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old_record() | {"not_run": not_run}), encoding="utf-8")
    with pytest.raises(IncompatibleRecordError, match=r"expected not_run\S* in .*old\.json to be"):
        read(path)


@pytest.mark.parametrize("value", [{}, {"cell": None}, {"cell": {"attack": 3}, "not_run": {}}, {"costs": []}])
def test_conversion_never_raises(value: dict) -> None:
    assert isinstance(schema1.convert(value), dict)


def test_the_input_is_not_changed() -> None:
    record = old_record()
    before = json.dumps(record)
    schema1.convert(record)
    assert json.dumps(record) == before
