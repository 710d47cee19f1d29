"""Fixtures: a store with a shared tier, in a folder and in memory; every machine has its own local tier."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from privbench.benchmark.core.paths import Address
from privbench.benchmark.store import shared_files
from privbench.benchmark.store.shared_files import RemoteFiles
from privbench.benchmark.store.store import Store


class Machines:
    """Machines that share the tier at a URL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self.files = RemoteFiles(url)

    def open(self, name: str = "first") -> Store:
        """The store as a new process on a machine opens it."""
        return Store(Address(str(self._folder / name), self.url))

    def names(self, begin: str = "") -> list[str]:
        """Files of the shared tier."""
        return sorted(name for name in self.files.sizes() if name.startswith(begin))

    def read(self, name: str) -> bytes:
        return self.files.read(name, 1 << 30)

    def replace(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of a file, as a fault or an attacker would."""
        source = self._folder / uuid.uuid4().hex
        source.parent.mkdir(exist_ok=True, parents=True)
        source.write_bytes(data)
        self.files.put(name, source)


@pytest.fixture(params=["file", "memory"])
def machines(request, tmp_path):
    url = f"file://{tmp_path}/shared" if request.param == "file" else f"memory://{uuid.uuid4().hex}/shared"
    return Machines(url, tmp_path / "machines")


@pytest.fixture
def in_a_folder(tmp_path):
    return Machines(f"file://{tmp_path}/shared", tmp_path / "machines")


@pytest.fixture
def in_memory(tmp_path):
    return Machines(f"memory://{uuid.uuid4().hex}", tmp_path / "machines")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(shared_files, "PAUSES", (0.0,) * len(shared_files.PAUSES))


@pytest.fixture
def requests(monkeypatch):
    """Requests to the shared tier: action and file name."""
    made = []

    def counted(name):
        real = getattr(RemoteFiles, name)

        def call(self, *arguments):
            made.append((name, *[str(argument) for argument in arguments[:1]]))
            return real(self, *arguments)

        monkeypatch.setattr(RemoteFiles, name, call)

    for name in ("read", "chunks", "put", "create", "move", "remove", "sizes", "modified", "top"):
        counted(name)
    return made


@pytest.fixture
def ages(monkeypatch):
    """Ages of files of the shared tier in days, by the start of their names; other files are new."""
    found, real = {}, RemoteFiles.modified

    def modified(self, name):
        for begin, days in found.items():
            if name.startswith(begin):
                return datetime.now(UTC) - timedelta(days=days)
        return real(self, name)

    monkeypatch.setattr(RemoteFiles, "modified", modified)
    return found
