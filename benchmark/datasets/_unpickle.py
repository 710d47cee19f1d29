"""Restricted unpickler for the files of CIFAR-10.

Unpickling can run any code that the file names, so privbench stores its own artifacts in safetensors and JSON. CIFAR-10
has no other official format. Its batches are read only if their MD5 matches the published one, and with an unpickler
that accepts only the three names that such a batch contains.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


def _dtype(name: str, align: int = 0, copy: int = 0) -> np.dtype[Any]:
    """`numpy.dtype` with the flags as Python 2 pickled them, integers."""
    return np.dtype(name, align=bool(align), copy=bool(copy))


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # type: ignore[dict-item]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
}


class _Unpickler(pickle.Unpickler):
    """Rejects every global except those of an array."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the function or class that a name in the file refers to."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch of arrays")
        return _KNOWN[module, name]


def unpickle(content: bytes) -> dict[str, Any]:
    """Read a dictionary of arrays, lists, strings and numbers from a pickle of Python 2.

    Raises:
        pickle.UnpicklingError: the pickle contains anything else.
    """
    loaded = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError(f"expected a dictionary, got {type(loaded).__name__}")
    return loaded
