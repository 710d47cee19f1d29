"""Maintenance of a store: list what it contains, find and repair damage, remove what is not needed."""

import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import CorruptArtifactError
from ..files import atomic
from ..files.tree import Tree
from . import checkpoint, leases
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
DescribeDamage = Callable[[Tree, Path, str, str], str | None]


#: States of what a lease keeps.
_LEASED = ("artifact", "damaged", "checkpoint")


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
    for kind, key, path in _folders(layout.tree, layout.root):
        bytes_ = layout.tree.size(path)
        try:
            manifest = examine(path, kind, key, contents=False)
        except CorruptArtifactError:
            if layout.tree.exists(path):
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
    with leases.in_use(layout, dry_run=dry_run) as leased:
        unwanted = [
            *_leftovers(layout),
            *_quarantined(layout),
            *(entry for entry in entries(layout) if not is_kept(entry, keep) and _is_older(layout, entry, limit)),
            *(entry for entry in _checkpoints(layout) if _is_done_with(layout, entry, keep, limit)),
        ]
        return [
            entry
            for entry in unwanted
            if not (entry.key in leased and entry.state in _LEASED) and _remove_entry(layout, entry, dry_run)
        ]


def _folders(tree: Tree, root: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, key and path of everything at the path of an artifact or of checkpoints; links are strays."""
    for kind in _listed(tree, root):
        if not is_kind(kind.name) or not tree.is_folder(kind):
            continue
        for prefix in _listed(tree, kind):
            for path in _listed(tree, prefix) if tree.is_folder(prefix) else []:
                if _is_artifact_path(path):
                    yield kind.name, path.name, path


def _listed(tree: Tree, folder: Path) -> list[Path]:
    with atomic.storage_errors(folder, "read"):
        return tree.children(folder)


def _strays(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    """Find what is not part of the layout."""
    tree, own = layout.tree, {FORMAT_FILE, *RESERVED}
    locks = [path for path in _listed(tree, layout.root / LOCKS) if not _is_lock(path, tree)]
    for path in [*_misplaced(tree, layout.root, own), *_misplaced(tree, layout.root / CHECKPOINTS, set()), *locks]:
        if repair:
            layout.quarantine(path)
        yield Problem(path, "it is not part of a store", repaired=repair)


def _is_lock(path: Path, tree: Tree) -> bool:
    return path.suffix in {".lock", ".json"} and (not tree.exists(path) or stat.S_ISREG(tree.status(path).st_mode))


def _misplaced(tree: Tree, root: Path, known: Collection[str]) -> Iterator[Path]:
    for path in _listed(tree, root):
        if path.name in known:
            continue
        if not is_kind(path.name) or not tree.is_folder(path):
            yield path
            continue
        for prefix in _listed(tree, path):
            if tree.is_folder(prefix) and len(prefix.name) == 2:
                yield from (child for child in _listed(tree, prefix) if not _is_artifact_path(child))
            else:
                yield prefix


def _is_artifact_path(path: Path) -> bool:
    return is_key(path.name) and path.name[:2] == path.parent.name


def _damaged(layout: StoreLayout, repair: bool) -> Iterator[Problem]:
    """Find damaged artifacts and checkpoints."""
    tree = layout.tree
    for kind, key, path in _folders(tree, layout.root):
        yield from _problem(layout, path, kind, key, _damage, repair)
    for kind, key, folder in _folders(tree, layout.root / CHECKPOINTS):
        for path in _listed(tree, folder) if tree.is_folder(folder) else [folder]:
            yield from _problem(layout, path, kind, key, _checkpoint_damage, repair)


def _problem(
    layout: StoreLayout, path: Path, kind: str, key: str, damage: DescribeDamage, repair: bool
) -> Iterator[Problem]:
    """Find the problem of one path, if any; before a repair it is checked again under the lock of its key."""
    reason = damage(layout.tree, path, kind, key)
    if reason is None:
        return
    if not repair:
        yield Problem(path, reason, kind, key)
        return
    with layout.lock_if_free(kind, key) as free:
        reason = damage(layout.tree, path, kind, key)
        if reason is not None and free:
            layout.quarantine(path, kind, key)
        if reason is not None:
            yield Problem(path, reason, kind, key, repaired=free)


def _damage(tree: Tree, path: Path, kind: str, key: str) -> str | None:
    try:
        examine(path, kind, key)
    except CorruptArtifactError as damage:
        return str(damage) if tree.exists(path) else None
    return None


def _checkpoint_damage(tree: Tree, path: Path, kind: str, key: str) -> str | None:
    if not path.name.endswith(checkpoint.ENDING):
        return "it is not a checkpoint"
    try:
        checkpoint.read(tree, path, kind, key)
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
    """Yield temporary files of keys that nobody has locked."""
    for path in _listed(layout.tree, layout.root / TEMPORARY):
        kind, key = split_name(path.name) or ("", "")
        if layout.is_held(kind, key):
            continue
        if kind:
            with layout.lock_if_free(kind, key) as free:
                if not free or not layout.tree.exists(path):
                    continue
        yield StoreEntry(kind, key, layout.tree.size(path), None, path=path, state="leftover")


def _quarantined(layout: StoreLayout) -> Iterator[StoreEntry]:
    for path in _listed(layout.tree, layout.root / QUARANTINE):
        kind, key = split_name(path.name) or ("", "")
        yield StoreEntry(kind, key, layout.tree.size(path), None, path=path, state="quarantined")


def _checkpoints(layout: StoreLayout) -> Iterator[StoreEntry]:
    for kind, key, path in _folders(layout.tree, layout.root / CHECKPOINTS):
        yield StoreEntry(kind, key, layout.tree.size(path), None, path=path, state="checkpoint")


def is_kept(entry: StoreEntry, keep: Keep) -> bool:
    """Tell whether an artifact is to be kept."""
    if keep is None:
        return True
    return keep(entry) if callable(keep) else entry.key in keep


def _is_older(layout: StoreLayout, entry: StoreEntry, limit: float | None) -> bool:
    if limit is None:
        return True
    written = seconds(entry.created)
    if written is not None:
        return written < limit
    with atomic.storage_errors(entry.path, "read"):
        try:
            times = [layout.tree.status(entry.path), *(facts for _, facts in layout.tree.entries(entry.path))]
        except FileNotFoundError:  # somebody else removed it
            return False
    return max(facts.st_mtime for facts in times) < limit


def seconds(created: str | None) -> float | None:
    """Convert a time of a manifest to seconds since 1970; `None` if it is not a real time."""
    try:
        return None if created is None else datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_done_with(layout: StoreLayout, entry: StoreEntry, keep: Keep, limit: float | None) -> bool:
    """Tell whether a checkpoint is of a finished artifact, or old and not kept."""
    try:
        examine(layout.folder(entry.kind, entry.key), entry.kind, entry.key, contents=False)
    except CorruptArtifactError:
        return limit is not None and not is_kept(entry, keep) and _is_older(layout, entry, limit)
    return True


def _remove_entry(layout: StoreLayout, entry: StoreEntry, dry_run: bool) -> bool:
    """Remove an entry unless its key is locked; returns whether it was removed, or would be."""
    with atomic.storage_errors(entry.path, "remove"):
        if entry.state == "quarantined" or not entry.kind:
            if not dry_run:
                layout.tree.remove(entry.path)
            return True
        with layout.lock_if_free(entry.kind, entry.key) as free:
            if free and not dry_run:
                layout.discard(entry.path, entry.kind, entry.key)
            return free
