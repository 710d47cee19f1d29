"""Leases: the artifacts that live runs use, which `gc` therefore keeps.

A lease of the local tier is a temporary file that lists keys, under a lock of its own, which the system releases when
the process ends, also when it is killed. A lease is written under the lock that `gc` holds while it removes: a run
finds artifacts either before `gc` looks for leases or after it has removed what it may.

The shared tier has no locks. There, a lease is a file that counts for some days after it was written.
"""

import contextlib
import itertools
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from ..errors import CorruptArtifactError, StorageError
from ..files import atomic
from ..files.documents import decode
from .layout import TEMPORARY, StoreLayout, split_name
from .shared import Remote

log = logging.getLogger("privbench")
#: Kind of the locks and files of leases.
LEASE = "lease"
#: Key of the lock that `gc` and a run that makes its lease hold.
_GATE = "gate"
#: Begin of the names of leases in the shared tier.
SHARED = f"{TEMPORARY}/{LEASE}-"
#: Age in seconds after which a lease of the shared tier no longer counts, and after which a run writes it again.
SHARED_SECONDS = 7 * 86400.0
_RENEWAL_SECONDS = 3600.0
#: Bytes of a lease: a plan of a million stages has fewer.
_MAX_BYTES = 1 << 27


@contextlib.contextmanager
def local_lease(layout: StoreLayout, keys: Collection[str]) -> Iterator[None]:
    """Keep artifacts of the local tier from `gc` while the block runs. Without permission to write it does nothing.

    Raises:
        StorageError: the store cannot be read, or is full.
    """
    with contextlib.ExitStack() as held:
        try:
            with _gate(layout):
                list(_live(layout, remove=True))
                slot = _slot(layout, held)
                path = layout.temporary(LEASE, slot)
                held.callback(_remove, layout, path)
                with atomic.storage_errors(path):
                    layout.tree.write_new(path, [_encoded(keys)], sync=False)
        except StorageError as cause:
            if not atomic.is_denied(cause):
                raise
        yield


def _remove(layout: StoreLayout, path: Path) -> None:
    with contextlib.suppress(OSError):
        layout.tree.remove(path)


@contextlib.contextmanager
def in_use(layout: StoreLayout, *, dry_run: bool = False) -> Iterator[set[str]]:
    """Let no run start while the block runs; yields the keys that live runs use, or used until a moment ago.

    Whoever reads records after that has the keys of all runs: one that is no longer live has written its records.

    Args:
        layout: of the store.
        dry_run: nothing will be removed, so runs may start.

    Raises:
        StorageError: the store cannot be read, or a lease is damaged.
    """
    with contextlib.ExitStack() as held:
        if not dry_run and layout.exists():
            try:
                held.enter_context(_gate(layout))
            except StorageError as cause:
                if not atomic.is_denied(cause):  # without permission nothing can be removed
                    raise
        yield _keys(layout)


def _gate(layout: StoreLayout) -> contextlib.AbstractContextManager[None]:
    """Hold the lock under which leases are made, and under which `gc` reads them and removes the rest."""
    return layout.lock(LEASE, _GATE)


def _slot(layout: StoreLayout, held: contextlib.ExitStack) -> str:
    """Take the first free lock of a lease: locks are never removed, so they must not become more with each run."""
    return next(
        slot
        for slot in (f"{number:03}" for number in itertools.count())
        if not layout.is_held(LEASE, slot) and held.enter_context(layout.lock_if_free(LEASE, slot))
    )


def _keys(layout: StoreLayout) -> set[str]:
    """Read the keys that live processes have leased in the local tier."""
    keys: set[str] = set()
    for path in _live(layout, remove=False):
        with atomic.storage_errors(path, "read"):
            try:
                keys |= _decoded(layout.tree.read(path, _MAX_BYTES))
            except FileNotFoundError:  # its run has ended
                continue
            except (CorruptArtifactError, ValueError) as damage:
                raise StorageError(
                    f"the list of artifacts in use by a run, {path}, is damaged; try again when the run has ended"
                ) from damage
    return keys


def _live(layout: StoreLayout, *, remove: bool) -> Iterator[Path]:
    """Yield the leases of live processes; `remove` removes those of dead ones."""
    with atomic.storage_errors(layout.root / TEMPORARY, "read"):
        paths = layout.tree.children(layout.root / TEMPORARY)
    for path in paths:
        kind, slot = split_name(path.name) or ("", "")
        if kind != LEASE:
            continue
        if layout.is_held(kind, slot):
            yield path
            continue
        with layout.lock_if_free(kind, slot) as is_dead:
            if is_dead and remove:
                with atomic.storage_errors(path, "remove"):
                    layout.tree.remove(path)
            elif not is_dead:
                yield path


@contextlib.contextmanager
def shared_lease(remote: Remote, keys: Collection[str]) -> Iterator[Callable[[], None]]:
    """Keep artifacts of the shared tier from `gc`; yields a function that writes the lease again if it is due.

    A tier that does not exist yet, or cannot be written for want of permission, gets no lease.

    Raises:
        StorageError: the tier cannot be read.
    """
    name, written = "", -_RENEWAL_SECONDS

    def renew() -> None:
        nonlocal name, written
        if time.monotonic() - written < _RENEWAL_SECONDS or not remote.exists():
            return
        earlier, name, written = name, f"{SHARED}{secrets.token_hex(16)}", time.monotonic()
        try:
            remote.files.create(name, _encoded(keys))
            if earlier:
                remote.files.remove(earlier)
        except StorageError as cause:
            if not atomic.is_denied(cause):
                log.warning("what this run uses can be removed from the shared store by gc: %s", cause)

    renew()
    try:
        yield renew
    finally:
        if name:
            with contextlib.suppress(StorageError):
                remote.files.remove(name)


def shared_keys(remote: Remote, names: Iterable[str]) -> set[str]:
    """Read the keys of leases of the shared tier; a damaged one has none."""
    keys: set[str] = set()
    for name in names:
        with contextlib.suppress(CorruptArtifactError, ValueError):
            keys |= _decoded(remote.files.read(name, _MAX_BYTES) or b"[]")
    return keys


def _encoded(keys: Collection[str]) -> bytes:
    return json.dumps(sorted(keys)).encode()


def _decoded(data: bytes) -> set[str]:
    found = decode(data)
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise ValueError("it is not a list of keys")
    return set(found)
