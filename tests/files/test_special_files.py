"""Pipes, devices, sockets and endless files in the place of a file: one sentence, at once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.special import SPECIAL
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.errors import PrivbenchError
from privbench.benchmark.exports.manifest import read_manifest
from privbench.benchmark.exports.zoo import open_zoo
from privbench.benchmark.files.hashing import hash_file
from privbench.benchmark.networks.weights import importing, named
from privbench.benchmark.pipeline.matrix_file import read_matrix
from privbench.benchmark.records.submission import read_submission
from privbench.benchmark.records.verification import Verification
from privbench.benchmark.report.html.output_folder import require_replaceable

#: A reader that waits for a pipe waits for ever.
pytestmark = pytest.mark.timeout(60)

RECORD = next((Path(__file__).parents[2] / "results" / "records").glob("digits-v2/none/kedmi/*.png")).with_suffix(
    ".json"
)
#: Readers, and the name of the file in the folder that they are given.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "matrix": ("matrix.toml", lambda folder: read_matrix(folder / "matrix.toml")),
    "records": ("records/a.json", lambda folder: _strictly(folder)),
    "submission": ("submission.json", lambda folder: read_submission(folder)),
    "verification": ("a.json", lambda folder: Verification.read(folder / "a.json")),
    "manifest of an export": ("manifest.json", lambda folder: read_manifest(folder)),
    "index of a zoo": ("zoo.json", lambda folder: open_zoo(folder)),
    "report": ("index.html", lambda folder: require_replaceable(folder)),
    "weights to import": ("w.safetensors", lambda folder: importing._tensors(folder / "w.safetensors")),
    "manifest of weights": ("mobilefacenet.json", lambda folder: named.manifest("mobilefacenet")),
}


def _strictly(folder: Path) -> None:
    load_records(folder, strict=True)


@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_special_files(tmp_path, monkeypatch, reader) -> None:
    name, read = READERS[reader]
    for kind, special in SPECIAL.items():
        folder = tmp_path / kind
        monkeypatch.setenv("PRIVBENCH_WEIGHTS", str(folder))
        (folder / name).parent.mkdir(parents=True)
        special(folder / name)
        if (reader, kind) == ("records", "folder"):
            continue  # a folder of records may have any name
        with pytest.raises(PrivbenchError) as refusal:
            read(folder)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_picture_is_left_out(tmp_path, kind) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / RECORD.name).write_bytes(RECORD.read_bytes())
    SPECIAL[kind](tmp_path / "records" / RECORD.with_suffix(".png").name)
    (record,) = records = load_records(tmp_path)
    assert records.picture(record) is None


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "sparse"])
def test_only_files_are_hashed(tmp_path, kind) -> None:
    SPECIAL[kind](tmp_path / "file")
    with pytest.raises(PrivbenchError, match="to be a file, got something else"):
        hash_file(tmp_path / "file")
