"""Canonical JSON and its digest."""

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Serialise as JSON with sorted keys and no spaces; equal values give equal text.

    Example:
        >>> canonical({"b": 1, "a": [0.5, None]})
        '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
