"""Shared fixtures: real data and small disks where the machine has them, few threads."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# Tests are many and small: workers of pytest-xdist take a core each, a lone process takes two.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ or "OMP_NUM_THREADS" in os.environ else 2)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip where there is none."""
    folder = os.environ.get("PRIVBENCH_DATA")
    if not folder:
        pytest.skip("PRIVBENCH_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture(scope="session")
def mount_disk(tmp_path_factory) -> Iterator[Callable[[str], Path]]:
    """Makes real disks of a size, such as `256k`, or skips where mounting is not allowed."""
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
