"""Stable seeds: every generator of a run is seeded by names and numbers, never by Python's `hash`."""

import hashlib
import json

import torch


def derive(*parts: int | str) -> int:
    """Derive a 63-bit seed from names and numbers, the same on every machine, process and Python version.

    The seed is the first eight bytes of SHA-256(JSON of the parts), read as a big-endian integer, mod 2^63. Types and
    boundaries of parts matter: `derive(1)` differs from `derive("1")`, `derive("ab", "c")` from `derive("a", "bc")`.

    Args:
        parts: integers of any size and strings, in a fixed order.

    Returns:
        An integer in [0, 2^63), as accepted by `torch.Generator.manual_seed`.

    Raises:
        TypeError: a part is neither an integer nor a string.

    Example:
        >>> derive("epoch", 0, 3) == derive("epoch", 0, 3) != derive("epoch", 0, 4)
        True
    """
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(f"expected each part to be an integer or a string, got {part!r}")
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)


def seed_layers(device: torch.device, seed: int) -> None:
    """Seed the global generators that layers such as dropout use, on the CPU and on `device`.

    `torch.manual_seed` does the same for all devices, but takes milliseconds per step if CUDA has not been used yet,
    since it formats a stack trace.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
