"""Choice of the computing device."""

import re

import torch

from ..errors import InvalidConfigurationError


def choose_device(name: str) -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        InvalidConfigurationError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in counts or (index and not re.fullmatch("[0-9]{1,4}", index)):
        raise InvalidConfigurationError(f"expected device to be auto, cpu, cuda, cuda:N or mps, got {name!r}")
    if int(index or 0) >= counts[kind]:
        raise InvalidConfigurationError(f"expected device {name!r} to exist, got {counts[kind]} of its kind; use auto")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device(kind)
