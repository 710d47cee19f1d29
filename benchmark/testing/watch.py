"""Watch what a component reads while it works: files, fields of the protocol, and fields of its own.

Python reports every file that it opens itself to audit hooks. Compiled code that opens files by itself is not reported;
of that, the readers of PyTorch and torchvision are wrapped, through which safetensors reads tensors, too.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..core.config import Configuration, Protocol

#: Events that name a file, and the position of its path among their arguments.
_EVENTS = {"open": 0, "sqlite3.connect": 0}


@dataclass
class Reads:
    """Files and fields that were read.

    Args:
        opened: absolute paths of files that were opened for reading.
        written: absolute paths of files that were opened for writing.
        fields: fields of a protocol.
        settings: fields of the component.
        offline: whether connections to other machines are refused.
    """

    opened: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    settings: set[str] = field(default_factory=set)
    offline: bool = False

    def files(self) -> list[Path]:
        """Return the files that were read and not written, as far as they still exist, sorted."""
        return [Path(path) for path in sorted(self.opened - self.written) if Path(path).is_file()]


_watching: list[Reads] = []


@contextlib.contextmanager
def watch(component: type[Configuration] | None = None, *, offline: bool = False) -> Iterator[Reads]:
    """Watch what this process reads in the block.

    Args:
        component: class whose fields are watched.
        offline: refuse connections to other machines.
    """
    _install_hook()
    reads = Reads(offline=offline)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_wrapped_readers())
        stack.enter_context(_watched_fields(Protocol, reads.fields))
        if component is not None:
            stack.enter_context(_watched_fields(component, reads.settings))
        _watching.append(reads)
        try:
            yield reads
        finally:
            _watching.remove(reads)


@contextlib.contextmanager
def _watched_fields(cls: type[Configuration], found: set[str]) -> Iterator[None]:
    """Add the names of the fields of a class that are read in the block to `found`."""
    own, usual = vars(cls).get("__getattribute__"), cls.__getattribute__

    def reading(self: Any, name: str) -> Any:
        if name in cls.model_fields:
            found.add(name)
        return usual(self, name)

    cls.__getattribute__ = reading  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del cls.__getattribute__
        else:
            cls.__getattribute__ = own  # type: ignore[method-assign]


@functools.cache
def _install_hook() -> None:
    """Add the hook; Python has no way to remove it, and it does nothing while nobody watches."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _EVENTS:
        flags = arguments[2] if event == "open" else os.O_RDONLY
        _note(arguments[_EVENTS[event]], writes=bool(flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)))
    elif event == "socket.connect" and any(reads.offline for reads in _watching):
        raise OSError("checks make no connections")


def _note(path: Any, *, writes: bool = False) -> None:
    if not isinstance(path, str | bytes | os.PathLike):  # the number of an open file
        return
    absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (it does not follow links)
    for reads in _watching:
        (reads.written if writes else reads.opened).add(absolute)


@contextlib.contextmanager
def _wrapped_readers() -> Iterator[None]:
    """Report the files that PyTorch and torchvision open in compiled code."""
    owners: list[tuple[Any, str]] = [(torch.UntypedStorage, "from_file"), (torch, "from_file")]
    with contextlib.suppress(ImportError, AttributeError, RuntimeError):
        import torchvision.io  # noqa: F401 (it registers the operation)

        owners.append((torch.ops.image, "read_file"))
    with contextlib.ExitStack() as stack:
        for owner, name in owners:
            with contextlib.suppress(AttributeError):
                usual = getattr(owner, name)
                setattr(owner, name, _reporting(usual))
                stack.callback(setattr, owner, name, usual)
        yield


def _reporting(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(path: Any, *args: Any, **settings: Any) -> Any:
        _note(path)
        return function(path, *args, **settings)

    return wrapped
