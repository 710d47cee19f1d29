"""A full disk under every command that writes: one sentence, nothing half-written, and success once there is space."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import command_line, tiny
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.store.store import Store

PAGE = 4096
#: Pages that are left free on the disk, until the command has enough; at last all. A run takes seconds each time.
FREE = (0, 1, 3, 8, 20, 60, 200, 600, 2000, 1 << 20)
FREE_OF_A_RUN = (0, 3, 20, 200, 2000, 1 << 20)
CELL = ["run", "--no-controls", "--defense", "none", "--attack", "gmi", "--budget", "smoke", "--device", "cpu"]
CELL += tiny.words()
#: Commands, and what each writes below the disk's folder.
COMMANDS: dict[str, list[str]] = {
    "report html": ["report", "{made}/results", "--format", "html", "--output", "{disk}/board"],
    "report single": ["report", "{made}/results", "--format", "html", "--single", "--output", "{disk}/board.html"],
    "report csv": ["report", "{made}/results", "--format", "csv", "--output", "{disk}/board.csv"],
    "figure": ["figure", "reconstructions", "{made}/results", "--out", "{disk}/figure.png", "--store", "{made}/store"],
    "export": ["export", "{record}", "{disk}/export", "--store", "{made}/store"],
    "zoo": ["zoo", "add", "{made}/export", "{disk}/zoo"],
    "submit": [
        *("submit", "{record}", "--contact", "a@example.org", "--paper", "x", "--store", "{made}/store"),
        *("--output", "{disk}/submission"),
    ],
    "new": ["new", "defense", "my_thing", "--into", "{disk}/package"],
    "run": [*CELL, "--store", "{disk}/store", "--results", "{disk}/results"],
    "run into results": [*CELL, "--store", "{made}/store", "--results", "{disk}/results"],
}


@pytest.fixture(scope="module")
def disk(mount_disk: Callable[[str], Path]) -> Path:
    """A real disk of 192 MiB."""
    return mount_disk("192m")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store and results with one cell, and an export of its target."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVBENCH_DATA", str(folder))
        command_line.output(*CELL, "--store", folder / "store", "--results", folder / "results")
        (path,) = (folder / "results").rglob("*.json")
        command_line.output("export", path, folder / "export", "--store", folder / "store")
    assert (folder / "export").is_dir()
    return folder


@contextlib.contextmanager
def nearly_full(disk: Path, pages: int) -> Iterator[None]:
    """The disk with so many free pages."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * PAGE)
    os.truncate(filler, max(0, filler.stat().st_size - PAGE * pages))
    try:
        yield
    finally:
        filler.unlink()


def files(folder: Path) -> set[str]:
    """What is there but for the empty files that are locked."""
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, disk: Path, made: Path, privbench: command_line.Command) -> None:
    (record,) = (made / "results").rglob("*.json")
    folder = disk / name.replace(" ", "-")
    folder.mkdir()
    words = [word.format(made=made, disk=folder, record=record) for word in COMMANDS[name]]
    refused = 0
    for pages in FREE_OF_A_RUN if name.startswith("run") else FREE:
        with nearly_full(disk, pages):
            code, _, said = privbench(*words)
        assert "Traceback" not in said
        if code == 0:
            break
        refused += 1
        assert code == 1
        sentences = [line for line in said.splitlines() if "no space left on device" in line.lower()]
        assert sentences, said
        if not name.startswith("run"):
            assert files(folder) == set(), f"{pages} pages"
            assert said.splitlines()[-1].startswith("privbench: ")
            assert len(sentences) == 1
        else:
            check_what_is_left(folder)
    assert refused > 1
    assert code == 0, said
    if name.startswith("run"):
        assert len(load_records(folder / "results")) == 1
        check_what_is_left(folder)


def check_what_is_left(folder: Path) -> None:
    """Whole artifacts and whole records only."""
    if (folder / "store").exists():
        assert Store(folder / "store").check() == []
    if (folder / "results").exists():
        assert not load_records(folder / "results").problems
