"""Looking after a store: what is in it, what is wrong with it, what can go."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import CorruptArtifactError
from ..files import atomic
from .checkpoint import ENDING, verify
from .layout import (
    CHECKPOINTS,
    FORMAT_FILE,
    LOCKS,
    QUARANTINE,
    RESERVED,
    TEMPORARY,
    StoreLayout,
    is_key,
    is_kind,
    split_name,
)
from .manifest import examine

Keep: TypeAlias = "Callable[[StoreEntry], bool] | Collection[str] | None"
#: Says in one phrase what is wrong with the file or folder of a kind and key; `None` if nothing is, or it is gone.
Damage = Callable[[Path, str, str], str | None]


@dataclass(frozen=True)
class StoreEntry:
    """Something in a store.

    Args:
        kind: of its stage; empty where unknown.
        key: of its stage; empty where unknown.
        bytes: on disk.
        created: when, UTC in ISO 8601; `None` where unknown.
        inputs: keys it was made from, by role.
        path: where it lies.
        state: what it is; `damaged` is an artifact whose manifest does not fit, `leftover` a dead process's file.
        tier: which it is in; the path of something shared is relative to the URL of the store.
    """

    kind: str
    key: str
    bytes: int
    created: str | None
    inputs: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()
    state: Literal["artifact", "damaged", "checkpoint", "leftover", "quarantined"] = "artifact"
    tier: Literal["local", "shared"] = "local"


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it should be.

    Args:
        path: where.
        reason: what is wrong, one phrase.
        kind: of its stage; empty where unknown.
        key: of its stage; empty where unknown.
        repaired: it was moved to the quarantine or removed.
        tier: which it is in; the path of something shared is relative to the URL of the store.
    """

    path: Path
    reason: str
    kind: str = ""
    key: str = ""
    repaired: bool = False
    tier: Literal["local", "shared"] = "local"


def entries(layout: StoreLayout) -> Iterator[StoreEntry]:
    """Every artifact, by kind and key; only manifests are read, and damage is tolerated."""
    if not layout.exists():
        return
    for kind, key, path in _folders(layout.root):
        bytes_ = atomic.size(path)
        with atomic.storage_errors(path, "read"):
            try:
                manifest = examine(path, kind, key, contents=False)
            except CorruptArtifactError:
                if path.is_symlink() or path.exists():
                    yield StoreEntry(kind, key, bytes_, None, path=path, state="damaged")
                continue
        yield StoreEntry(kind, key, bytes_, manifest.created, manifest.inputs, path)


def check(layout: StoreLayout, repair: bool) -> list[Problem]:
    """Every problem of a store, by path; with `repair` damaged and unknown things go to the quarantine."""
    if not layout.exists():
        return []
    with atomic.storage_errors(layout.root, "check"):
        found = [
            *_strays(layout, repair),
            *_damaged(layout, repair),
            *_leftover_problems(layout, repair),
        ]
    return sorted(found, key=lambda problem: str(problem.path))


def collect(layout: StoreLayout, keep: Keep, older_than_days: float | None, dry_run: bool) -> list[StoreEntry]:
    """Remove what is not needed; `Store.gc` says what that is."""
    if not layout.exists():
        return []
    limit = None if older_than_days is None else time.time() - 86400 * older_than_days
    unwanted = [
        *_leftovers(layout),
        *_quarantined(layout),
        *(entry for entry in entries(layout) if not is_kept(entry, keep) and _is_older(entry, limit)),
        *(entry for entry in _checkpoints(layout) if _is_finished(layout, entry) or _is_abandoned(entry, keep, limit)),
    ]
    return [entry for entry in unwanted if _removed(layout, entry, dry_run)]


def _folders(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Kind, key and folder of whatever stands where an artifact or checkpoint folder belongs."""
    for kind in atomic.children(root):
        if not is_kind(kind.name):
            continue
        for prefix in atomic.children(kind):
            for path in atomic.children(prefix):
                if _is_place(path):
                    yield kind.name, path.name, path


def _strays(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    """What has no place in the layout."""
    locks = (path for path in atomic.children(layout.root / LOCKS) if path.suffix not in {".lock", ".json"})
    own = {FORMAT_FILE, *RESERVED}
    for path in [*_misplaced(layout.root, own), *_misplaced(layout.root / CHECKPOINTS, set()), *locks]:
        if repair:
            layout.quarantine(path)
        yield Problem(path, "it is not part of a store", repaired=repair)


def _misplaced(root: Path, known: Collection[str]) -> Iterator[Path]:
    for path in atomic.children(root):
        if path.name in known:
            continue
        if not is_kind(path.name) or not path.is_dir():
            yield path
            continue
        for prefix in atomic.children(path):
            if prefix.is_dir() and len(prefix.name) == 2:
                yield from (child for child in atomic.children(prefix) if not _is_place(child))
            else:
                yield prefix


def _is_place(path: Path) -> bool:
    return is_key(path.name) and path.name[:2] == path.parent.name


def _damaged(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    """Artifacts and checkpoints that are not what they should be."""
    for kind, key, path in _folders(layout.root):
        yield from _problem(layout, path, kind, key, _damage, repair)
    for kind, key, folder in _folders(layout.root / CHECKPOINTS):
        for path in atomic.children(folder) if folder.is_dir() else [folder]:
            yield from _problem(layout, path, kind, key, _checkpoint_damage, repair)


def _problem(layout: StoreLayout, path: Path, kind: str, key: str, damage: Damage, repair: bool) -> Iterator[Problem]:
    """The problem of one path, if any; it is looked at again once nobody else can change it."""
    reason = damage(path, kind, key)
    if reason is None:
        return
    if not repair:
        yield Problem(path, reason, kind, key)
        return
    with layout.lock_if_free(kind, key) as free:
        again = damage(path, kind, key)
        if again is not None and free:
            layout.quarantine(path, kind, key)
        if again is not None:
            yield Problem(path, again, kind, key, repaired=free)


def _damage(path: Path, kind: str, key: str) -> str | None:
    try:
        examine(path, kind, key)
    except CorruptArtifactError as damage:
        return str(damage) if path.is_symlink() or path.exists() else None
    return None


def _checkpoint_damage(path: Path, kind: str, key: str) -> str | None:
    if path.is_symlink() or path.is_dir() or not path.name.endswith(ENDING):
        return "it is no checkpoint"
    try:
        verify(atomic.read(path), kind, key)
    except FileNotFoundError:
        return None
    except CorruptArtifactError as damage:
        return str(damage)
    return None


def _leftover_problems(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    for entry in _leftovers(layout):
        repaired = repair and _removed(layout, entry, dry_run=False)
        yield Problem(entry.path, "an interrupted process left it", entry.kind, entry.key, repaired)


def _leftovers(layout: StoreLayout) -> Iterator[StoreEntry]:
    """Temporary files whose key nobody works on."""
    for path in atomic.children(layout.root / TEMPORARY):
        kind, key = split_name(path.name) or ("", "")
        if kind:
            with layout.lock_if_free(kind, key) as free:
                if not free or not path.exists():
                    continue
        yield StoreEntry(kind, key, atomic.size(path), None, path=path, state="leftover")


def _quarantined(layout: StoreLayout) -> Iterator[StoreEntry]:
    for path in atomic.children(layout.root / QUARANTINE):
        kind, key = split_name(path.name) or ("", "")
        yield StoreEntry(kind, key, atomic.size(path), None, path=path, state="quarantined")


def _checkpoints(layout: StoreLayout) -> Iterator[StoreEntry]:
    for kind, key, path in _folders(layout.root / CHECKPOINTS):
        yield StoreEntry(kind, key, atomic.size(path), None, path=path, state="checkpoint")


def is_kept(entry: StoreEntry, keep: Keep) -> bool:
    """Whether an artifact is to be kept."""
    if keep is None:
        return True
    return keep(entry) if callable(keep) else entry.key in keep


def _is_older(entry: StoreEntry, limit: float | None) -> bool:
    if limit is None:
        return True
    written = seconds(entry.created)
    if written is not None:
        return written < limit
    return max(path.lstat().st_mtime for path in (entry.path, *atomic.children(entry.path))) < limit


def seconds(created: str | None) -> float | None:
    """Seconds since 1970 of a time in a manifest; `None` where there is no such time."""
    try:
        return None if created is None else datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_finished(layout: StoreLayout, entry: StoreEntry) -> bool:
    try:
        examine(layout.folder(entry.kind, entry.key), entry.kind, entry.key, contents=False)
    except CorruptArtifactError:
        return False
    return True


def _is_abandoned(entry: StoreEntry, keep: Keep, limit: float | None) -> bool:
    return limit is not None and not is_kept(entry, keep) and _is_older(entry, limit)


def _removed(layout: StoreLayout, entry: StoreEntry, dry_run: bool) -> bool:
    """Whether the entry is gone, or would be; what somebody works on stays."""
    with atomic.storage_errors(entry.path, "remove"):
        if entry.state == "quarantined" or not entry.kind:
            if not dry_run:
                atomic.remove(entry.path)
            return True
        with layout.lock_if_free(entry.kind, entry.key) as free:
            if free and not dry_run:
                layout.discard(entry.path, entry.kind, entry.key)
            return free
