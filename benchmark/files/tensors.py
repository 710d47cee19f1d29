"""Named tensors to safetensors bytes and back, bit for bit; equal tensors give equal bytes. Imports torch late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CorruptArtifactError, InvalidConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

#: Reserved by the safetensors format.
_RESERVED = "__metadata__"


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Encode dense tensors of any shape, on any device, whether or not they share memory, as a safetensors file.

    Raises:
        InvalidConfigurationError: a name or value that safetensors cannot hold.
    """
    from safetensors.torch import save

    seen: set[int] = set()
    ready: dict[str, Tensor] = {}
    for name in sorted(tensors, key=str):
        _check_name(name)
        ready[name] = _ready(name, tensors[name], seen)
    try:
        return bytes(save(ready))
    except KeyError as cause:
        raise InvalidConfigurationError(
            f"expected each tensor to have a type that safetensors stores, got {cause.args[0]}; convert it"
        ) from cause


def unpack(data: bytes) -> dict[str, Tensor]:
    """Decode a safetensors file to tensors on the CPU, sorted by name.

    Raises:
        CorruptArtifactError: `data` is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found: dict[str, Tensor] = load(data)
    except SafetensorError as cause:
        raise CorruptArtifactError(f"not a safetensors file: {cause}") from cause
    return {name: found[name] for name in sorted(found)}


def flatten(groups: Mapping[str, Mapping[str, Tensor]]) -> tuple[list[str], dict[str, Tensor]]:
    """Return the names of groups of tensors, sorted, and all tensors, named by the number of the group and the name."""
    names = sorted(groups)
    return names, {f"{i}/{key}": value for i, name in enumerate(names) for key, value in groups[name].items()}


def unflatten(names: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the groups that `flatten` got.

    Raises:
        CorruptArtifactError: a tensor belongs to no group.
    """
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        if not index.isdecimal() or int(index[:9]) >= len(names):
            raise CorruptArtifactError(f"expected each tensor to belong to a group, got {key[:80]!r}")
        groups[names[int(index)]][name] = value
    return groups


def _check_name(name: Any) -> None:
    try:
        if name == _RESERVED:
            raise ValueError
        name.encode()
    except (ValueError, AttributeError):
        raise InvalidConfigurationError(
            f"expected each tensor's name to be text other than {_RESERVED!r}, got {name!r}; rename it"
        ) from None


def _ready(name: str, value: Any, seen: set[int]) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        kind = f"{value.layout} on {value.device}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InvalidConfigurationError(f"expected tensor {name!r} to be a dense tensor with values, got {kind}")
    tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    memory = tensor.untyped_storage().data_ptr()
    if memory in seen:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        memory = tensor.untyped_storage().data_ptr()
    seen.add(memory)
    return tensor
