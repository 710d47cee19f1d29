"""Settings of PyTorch that decide bytes, handed from one process to another."""

from collections.abc import Mapping
from typing import Any

import torch


def current_settings() -> dict[str, Any]:
    """Return the number of threads, the determinism and the precision of this process, as JSON values."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }


def apply_settings(values: Mapping[str, Any]) -> None:
    """Give this process the settings that `current_settings` returned in another one."""
    memory: Any = torch.utils.deterministic
    torch.set_num_threads(values["threads"])
    torch.set_deterministic_debug_mode("error" if values["deterministic"] else "default")
    memory.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    torch.set_float32_matmul_precision(values["precision"])
