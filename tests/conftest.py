"""Shared fixtures: real data where the machine has it, two threads at most."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip where there is none."""
    folder = os.environ.get("PRIVBENCH_DATA")
    if not folder:
        pytest.skip("PRIVBENCH_DATA names no folder with real data")
    return Path(folder)
