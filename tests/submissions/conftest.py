"""A small cell on digits, its valid submission, and tools that forge submissions."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import Command
from helpers.tiny import SETTINGS
from privbench.benchmark import api
from privbench.benchmark.files.tensors import pack, unpack
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.records.record import Record, location
from privbench.benchmark.records.submission import INDEX
from privbench.benchmark.store.store import Store
from privbench.benchmark.submissions.verify import SubmissionResult, verify_submission


@pytest.fixture(scope="session")
def author(tmp_path_factory) -> Iterator[Path]:
    """The author's folder: `store`, `results` with one record, and the submission `results/submissions/honest`."""
    folder = tmp_path_factory.mktemp("author")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = Matrix((Selection("digits"),), (Selection("none"),), (Selection("kedmi"),), None, (0,), "smoke", SETTINGS)
    _, outcome, records = api.execute(
        matrix.cells()[:1], data=folder, store=folder / "store", results=folder / "results", device="cpu"
    )
    assert records, outcome.failures
    yield folder
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def verifier(tmp_path_factory) -> Path:
    """The verifier's store, in which judges are trained separately."""
    return tmp_path_factory.mktemp("verifier") / "store"


@pytest.fixture
def privbench(privbench: Command, author: Path, monkeypatch) -> Command:
    """The command line with the author's store and results."""
    monkeypatch.setenv("PRIVBENCH_STORE", str(author / "store"))
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(author / "results"))
    return privbench


@pytest.fixture(scope="session")
def honest(author: Path) -> Path:
    """A valid submission, which tests do not change."""
    from privbench.benchmark.analysis.record_set import load_records
    from privbench.benchmark.submissions.bundle import write_submission

    folder = author / "submissions" / "honest"
    session = Session(Store(author / "store"), author, torch.device("cpu"))
    write_submission(load_records(author / "results"), folder, session, contact="author@example.org", paper="A paper")
    return folder


@pytest.fixture
def forged(honest: Path, tmp_path: Path) -> "Forgery":
    """A copy of the submission, which tests change."""
    return Forgery(Path(shutil.copytree(honest, tmp_path / "submissions" / "forged")))


@pytest.fixture(scope="session")
def check(verifier: Path) -> Callable[[Path], SubmissionResult]:
    """Return a function that verifies a folder, with bundled data."""
    session = Session(Store(verifier), verifier, torch.device("cpu"))
    return lambda folder: verify_submission(folder, session)


class Forgery:
    """A submission that can be changed together with its hashes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def index(self) -> dict[str, Any]:
        return json.loads((self.folder / INDEX).read_text("utf-8"))

    def change_index(self, edit: Callable[[dict[str, Any]], object]) -> None:
        value = self.index
        edit(value)
        (self.folder / INDEX).write_text(json.dumps(value), "utf-8")

    def replace(self, path: str, data: bytes) -> None:
        """Change a file, with its size and hash in the index."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.change_index(lambda index: index["files"].update({path: facts}))

    def drop(self, path: str) -> None:
        (self.folder / path).unlink()
        self.change_index(lambda index: index["files"].pop(path))

    def path(self, start: str) -> str:
        """The only file whose path starts or ends with `start`."""
        (found,) = [path for path in self.index["files"] if path.startswith(start) or path.endswith(start)]
        return found

    def change_record(self, edit: Callable[[dict[str, Any]], object]) -> None:
        """Edit the record, and update its path, the path of its picture, and the index."""
        old = self.path(".json")
        value = json.loads((self.folder / old).read_text("utf-8"))
        edit(value)
        record = Record.model_validate(value)
        new = location(record, Path()).as_posix()
        picture = (self.folder / old).with_suffix(".png").read_bytes()
        for path in (old, old.replace(".json", ".png")):
            self.drop(path)
        self.replace(new, record.text().encode())
        self.replace(new.replace(".json", ".png"), picture)
        self.change_index(lambda index: index["records"][0].update(record=new))

    def change_evidence(self, kind: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
        path = self.path(f"evidence/{kind}")
        tensors = unpack((self.folder / path).read_bytes())
        edit(tensors)
        self.replace(path, pack(tensors))
