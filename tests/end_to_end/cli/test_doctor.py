"""`privbench doctor` says what there is, and writes nothing."""

import importlib.metadata
import json

import pytest
from privbench.benchmark import registry
from privbench.benchmark.cli.main import app
from privbench.benchmark.store.store import open_store
from typer.testing import CliRunner


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    """What it finds, by name."""
    for name in ("CACHE", "DATA", "WEIGHTS"):
        monkeypatch.setenv(f"PRIVBENCH_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("PRIVBENCH_STORE", raising=False)

    def ask(*words):
        done = CliRunner().invoke(app, ["doctor", "--json", *map(str, words)])
        assert done.exit_code == 0, done.output
        return {finding["what"]: finding for finding in json.loads(done.stdout)}

    return ask


def test_it_looks_at_everything_and_writes_nothing(doctor, tmp_path):
    found = doctor()
    assert {"CPU", "CUDA", "MPS", "Ray", "data folder", "store folder"} <= found.keys()
    assert {f"data set {name}" for name in registry.names("dataset")} <= found.keys()
    assert found["data set digits"]["present"]
    assert not found["data set mnist"]["present"]
    assert "privbench data prepare mnist" in found["data set mnist"]["detail"]
    assert str(tmp_path / "cache" / "store") in found["store folder"]["detail"]
    assert "shared store" not in found
    assert list(tmp_path.iterdir()) == []


def test_ray_is_named_with_what_it_would_enable(doctor, monkeypatch):
    def version(name):
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor()["Ray"]["detail"] == "would enable --runner ray; pip install 'privbench[ray]'"


def test_both_tiers_of_a_shared_store(doctor, tmp_path):
    url = f"file://{tmp_path}/shared"
    found = doctor("--store", url)
    assert found["shared store"] == {
        "what": "shared store",
        "present": True,
        "detail": f"{url}, which the first run makes",
    }
    assert str(tmp_path / "cache" / "stores") in found["store folder"]["detail"]
    assert list(tmp_path.iterdir()) == []
    open_store(url).write("target", "a" * 64, tensors={}, info={})
    assert doctor("--store", url)["shared store"]["detail"] == url
    (tmp_path / "shared" / "format.json").write_text("{")
    found = doctor("--store", url)["shared store"]
    assert not found["present"]
    assert "format.json is damaged" in found["detail"]


def test_the_table_for_people(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path)])
    assert done.exit_code == 0
    assert "data set digits" in done.stdout
