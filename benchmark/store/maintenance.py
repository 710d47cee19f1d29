"""Maintenance of a store: list what it contains, find and repair damage, remove what is not needed."""

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
#: Describes the damage of the file or folder of a kind and key in one phrase; `None` if it is intact or was removed.
DescribeDamage = Callable[[Path, str, str], str | None]


@dataclass(frozen=True)
class StoreEntry:
    """Something in a store.

    Args:
        kind: of its stage; empty if unknown.
        key: of its stage; empty if unknown.
        bytes: on disk.
        created: UTC, ISO 8601; `None` if unknown.
        inputs: keys of the artifacts it was made from, by role.
        path: its file or folder; in the shared tier, relative to the URL of the store.
        state: `damaged` is an artifact that does not match its manifest, `leftover` a file of a dead process.
        tier: that contains it.
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
    """A fault of a store.

    Args:
        path: file or folder; in the shared tier, relative to the URL of the store.
        reason: what is wrong, in one phrase.
        kind: of its stage; empty if unknown.
        key: of its stage; empty if unknown.
        repaired: it was moved to the quarantine or removed.
        tier: that contains it.
    """

    path: Path
    reason: str
    kind: str = ""
    key: str = ""
    repaired: bool = False
    tier: Literal["local", "shared"] = "local"


def entries(layout: StoreLayout) -> Iterator[StoreEntry]:
    """Yield every artifact, by kind and key, damaged ones included; only manifests are read."""
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
    """Find the problems of a store, by path; `repair` moves damaged and unknown files to the quarantine."""
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
    """Remove what is not needed, as `Store.gc` defines it."""
    if not layout.exists():
        return []
    limit = None if older_than_days is None else time.time() - 86400 * older_than_days
    unwanted = [
        *_leftovers(layout),
        *_quarantined(layout),
        *(entry for entry in entries(layout) if not is_kept(entry, keep) and _is_older(entry, limit)),
        *(entry for entry in _checkpoints(layout) if _is_finished(layout, entry) or _is_abandoned(entry, keep, limit)),
    ]
    return [entry for entry in unwanted if _remove_entry(layout, entry, dry_run)]


def _folders(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, key and path of everything at the path of an artifact or of checkpoints."""
    for kind in atomic.children(root):
        if not is_kind(kind.name):
            continue
        for prefix in atomic.children(kind):
            for path in atomic.children(prefix):
                if _is_artifact_path(path):
                    yield kind.name, path.name, path


def _strays(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    """Find what is not part of the layout."""
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
                yield from (child for child in atomic.children(prefix) if not _is_artifact_path(child))
            else:
                yield prefix


def _is_artifact_path(path: Path) -> bool:
    return is_key(path.name) and path.name[:2] == path.parent.name


def _damaged(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    """Find damaged artifacts and checkpoints."""
    for kind, key, path in _folders(layout.root):
        yield from _problem(layout, path, kind, key, _damage, repair)
    for kind, key, folder in _folders(layout.root / CHECKPOINTS):
        for path in atomic.children(folder) if folder.is_dir() else [folder]:
            yield from _problem(layout, path, kind, key, _checkpoint_damage, repair)


def _problem(
    layout: StoreLayout, path: Path, kind: str, key: str, damage: DescribeDamage, repair: bool
) -> Iterator[Problem]:
    """Find the problem of one path, if any; before a repair it is checked again under the lock of its key."""
    reason = damage(path, kind, key)
    if reason is None:
        return
    if not repair:
        yield Problem(path, reason, kind, key)
        return
    with layout.lock_if_free(kind, key) as free:
        reason = damage(path, kind, key)
        if reason is not None and free:
            layout.quarantine(path, kind, key)
        if reason is not None:
            yield Problem(path, reason, kind, key, repaired=free)


def _damage(path: Path, kind: str, key: str) -> str | None:
    try:
        examine(path, kind, key)
    except CorruptArtifactError as damage:
        return str(damage) if path.is_symlink() or path.exists() else None
    return None


def _checkpoint_damage(path: Path, kind: str, key: str) -> str | None:
    if path.is_symlink() or path.is_dir() or not path.name.endswith(ENDING):
        return "it is not a checkpoint"
    try:
        verify(atomic.read(path), kind, key)
    except FileNotFoundError:
        return None
    except CorruptArtifactError as damage:
        return str(damage)
    return None


def _leftover_problems(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    for entry in _leftovers(layout):
        repaired = repair and _remove_entry(layout, entry, dry_run=False)
        yield Problem(entry.path, "an interrupted process left it", entry.kind, entry.key, repaired)


def _leftovers(layout: StoreLayout) -> Iterator[StoreEntry]:
    """Yield temporary files of keys that no process has locked."""
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
    """Tell whether an artifact is to be kept."""
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
    """Convert a time of a manifest to seconds since 1970; `None` if it is not a real time."""
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


def _remove_entry(layout: StoreLayout, entry: StoreEntry, dry_run: bool) -> bool:
    """Remove an entry unless its key is locked; returns whether it was removed, or would be."""
    with atomic.storage_errors(entry.path, "remove"):
        if entry.state == "quarantined" or not entry.kind:
            if not dry_run:
                atomic.remove(entry.path)
            return True
        with layout.lock_if_free(entry.kind, entry.key) as free:
            if free and not dry_run:
                layout.discard(entry.path, entry.kind, entry.key)
            return free
