"""Shared fixtures: the command line, real data, small disks; tests use few threads."""

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import command_line, targets
from privbench.benchmark.training import batches

# Tests are many and small: each worker of pytest-xdist uses one thread, a single process uses two.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ or "OMP_NUM_THREADS" in os.environ else 2)


#: Files that take longest. They run first, so that no worker still runs one while the others have nothing left.
LONGEST = (
    "tests/pipeline/test_run.py",
    "tests/end_to_end/docs/test_blocks.py",
    "tests/end_to_end/plugin/test_installed.py",
    "tests/testing/test_components.py",
    "tests/end_to_end/browser/test_board.py",
    "tests/runners/test_faults.py",
    "tests/slow/reliability/test_full_disk_commands.py",
)


#: Tests whose lines are not counted: others reach the same lines, and counting takes a third of these tests' time.
UNCOUNTED = (
    "tests/end_to_end/browser/",
    "tests/end_to_end/docs/",
    "tests/runners/test_plan_scale.py",
    "tests/slow/",
    "tests/submissions/test_untrusted_submissions.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front, each as a whole, and leave some tests out of the coverage."""
    for item in items:
        if item.nodeid.startswith(UNCOUNTED):
            item.add_marker(pytest.mark.no_cover)
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


def pytest_collection_finish() -> None:
    """Leave imported modules and collected tests out of garbage collections, which look at all objects again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Skip `fsync`, which waits for the disk: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def privbench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> command_line.Command:
    """Run the command line in this process, in an empty folder with folders of its own for data, store and results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    for name in ("STORE", "RESULTS", "DATA", "CACHE", "WEIGHTS"):
        monkeypatch.setenv(f"PRIVBENCH_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("PRIVBENCH_ZOO", raising=False)
    return command_line.run


@pytest.fixture(scope="module")
def local_targets() -> Iterator[None]:
    """Targets run in this process, for tests of something else than the separation of attack and target."""
    with pytest.MonkeyPatch.context() as patch:
        targets.keep_here(patch)
        yield


@pytest.fixture
def double() -> Iterator[None]:
    """Images, networks and random numbers in float64, so that a slow computation agrees to the last digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "to_float", lambda pixels: pixels.double() / 255)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped without one."""
    folder = os.environ.get("PRIVBENCH_DATA")
    if not folder:
        pytest.skip("PRIVBENCH_DATA is not set to a folder with real data")
    return Path(folder)


@pytest.fixture(scope="session")
def mount_disk(tmp_path_factory) -> Iterator[Callable[[str], Path]]:
    """Mounts disks of a size such as `256k`; tests are skipped if mounting is not allowed."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path_factory.mktemp("disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            done = False
        if not done:
            pytest.skip("mounting a small disk is not allowed")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
