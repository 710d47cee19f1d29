"""Shared fixtures: real data where the machine has it, few threads."""

import os
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
