"""Maintenance of the shared tier: list what is published, find and repair damage, remove what is not needed."""

import dataclasses
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CorruptArtifactError
from .layout import BLOBS, FORMAT_FILE, QUARANTINE, TEMPORARY, is_key, is_kind, split_name
from .leases import SHARED, SHARED_SECONDS, shared_keys
from .maintenance import Keep, Problem, StoreEntry, is_kept, seconds
from .manifest import FileFacts, Manifest
from .shared import Remote, blob_name, checked

log = logging.getLogger("privbench")
#: Younger blobs are kept although no manifest lists them: their writer may still publish it.
GRACE_SECONDS = 86400.0
_READERS = 8
_BLOB = re.compile(rf"{BLOBS}/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}")


@dataclasses.dataclass(frozen=True)
class _Published:
    """A manifest as read from the tier, unchecked."""

    kind: str
    key: str
    name: str
    data: bytes

    def manifest(self) -> Manifest:
        return checked(self.data, self.kind, self.key)

    def entry(self) -> StoreEntry:
        entry = StoreEntry(
            self.kind, self.key, len(self.data), None, path=Path(self.name), state="damaged", tier="shared"
        )
        try:
            manifest = self.manifest()
        except CorruptArtifactError:
            return entry
        total = entry.bytes + sum(facts.bytes for facts in manifest.files.values())
        return dataclasses.replace(
            entry, bytes=total, created=manifest.created, inputs=manifest.inputs, state="artifact"
        )


def entries(remote: Remote) -> list[StoreEntry]:
    """List every published artifact, by kind and key, damaged ones included; only manifests are read."""
    if not remote.exists():
        return []
    return [each.entry() for each in _published(remote, remote.files.sizes())]


def check(remote: Remote, repair: bool) -> list[Problem]:
    """Find the problems of the tier, by name, reading all blobs of its manifests; other blobs are not problems."""
    if not remote.exists():
        return []
    sizes = remote.files.sizes()
    found = [*_strays(remote, sizes, repair), *_damaged(remote, _published(remote, sizes), repair)]
    return sorted(found, key=lambda problem: str(problem.path))


def collect(
    remote: Remote, keep: Keep, older_than_days: float | None, dry_run: bool, *, artifacts: bool
) -> list[StoreEntry]:
    """Remove blobs that no manifest lists, leftovers and quarantined files, if older than the grace period.

    Args:
        remote: the tier.
        keep: artifacts to keep.
        older_than_days: keep younger artifacts.
        dry_run: remove nothing.
        artifacts: also remove artifacts that are not kept.

    Returns:
        Entries that were removed, or would be.
    """
    if not remote.exists():
        return []
    now = datetime.now(UTC) if dry_run else remote.now()
    is_old = _age_check(remote, now)
    sizes = remote.files.sizes()
    leased = {name for name in sizes if name.startswith(SHARED) and not is_old(name, SHARED_SECONDS)}
    in_use = shared_keys(remote, leased)
    published = list(_published(remote, sizes))
    limit = None if older_than_days is None else time.time() - 86400 * older_than_days
    removed: list[StoreEntry] = []
    unwanted: set[str] = set()
    for each in published if artifacts else ():
        entry = each.entry()
        if (
            not (is_kept(entry, keep) or entry.key in in_use)
            and _is_older(entry, limit)
            and is_old(each.name, GRACE_SECONDS)
        ):
            if not dry_run:
                remote.withdraw(each.kind, each.key, each.data)
            removed.append(entry)
            unwanted.add(each.name)
    named = {blob for each in published if each.name not in unwanted for blob in _blobs(each)}
    for entry in _unlisted(sizes, named):
        name = entry.path.as_posix()
        if name not in leased and is_old(name, GRACE_SECONDS):
            if not dry_run:
                remote.files.remove(name)
            removed.append(entry)
    return removed


def _published(remote: Remote, names: Iterable[str]) -> Iterator[_Published]:
    """Yield all manifests, reading several at a time, without those that vanish meanwhile."""
    pairs = [pair for pair in map(_kind_and_key, sorted(names)) if pair is not None]
    with ThreadPoolExecutor(_READERS) as readers:
        for (kind, key), data in zip(pairs, readers.map(lambda pair: remote.manifest(*pair), pairs), strict=True):
            if data is not None:
                yield _Published(kind, key, f"{kind}/{key[:2]}/{key}.json", data)


def _kind_and_key(name: str) -> tuple[str, str] | None:
    """Kind and key of a manifest by its name; `None` for other files."""
    kind, _, rest = name.partition("/")
    prefix, _, file = rest.partition("/")
    key = file.removesuffix(".json")
    fits = file.endswith(".json") and is_kind(kind) and is_key(key) and prefix == key[:2]
    return (kind, key) if fits else None


def _strays(remote: Remote, names: Iterable[str], repair: bool) -> Iterator[Problem]:
    for name in names:
        begin = name.partition("/")[0]
        if name == FORMAT_FILE or begin in (TEMPORARY, QUARANTINE) or _kind_and_key(name) or _BLOB.fullmatch(name):
            continue
        if repair:
            remote.files.move(name, f"{QUARANTINE}/unknown-unknown-{secrets.token_hex(8)}")
        yield Problem(Path(name), "it is not part of a store", repaired=repair, tier="shared")


def _damaged(remote: Remote, published: Iterable[_Published], repair: bool) -> Iterator[Problem]:
    known: dict[FileFacts, str | None] = {}
    for each in published:
        reason = _damage(remote, each, known)
        if reason is None or remote.manifest(each.kind, each.key) != each.data:
            continue
        if repair:
            remote.quarantine(each.kind, each.key, each.data, CorruptArtifactError(reason))
        yield Problem(Path(each.name), reason, each.kind, each.key, repaired=repair, tier="shared")


def _damage(remote: Remote, each: _Published, known: dict[FileFacts, str | None]) -> str | None:
    """Describe the damage of an artifact in one phrase; blobs in `known` are not read again."""
    try:
        manifest = each.manifest()
    except CorruptArtifactError as damage:
        return f"its manifest is damaged: {damage}"
    for facts in manifest.files.values():
        if facts not in known:
            known[facts] = remote.blob_damage(facts)
        if known[facts] is not None:
            return known[facts]
    return None


def _blobs(each: _Published) -> list[str]:
    try:
        return [blob_name(facts.sha256) for facts in each.manifest().files.values()]
    except CorruptArtifactError:
        return []


def _unlisted(sizes: dict[str, int], named: set[str]) -> Iterator[StoreEntry]:
    """Yield files that no manifest lists."""
    for name in sorted(sizes):
        begin, _, rest = name.partition("/")
        if begin == QUARANTINE:
            kind, key = split_name(rest) or ("", "")
            yield StoreEntry(kind, key, sizes[name], None, path=Path(name), state="quarantined", tier="shared")
        elif begin == TEMPORARY or (_BLOB.fullmatch(name) and name not in named):
            yield StoreEntry("", "", sizes[name], None, path=Path(name), state="leftover", tier="shared")


def _age_check(remote: Remote, now: datetime | None) -> Callable[[str, float], bool]:
    """Make a function that tells whether a file is older than so many seconds; `False` if its age is unknown."""

    def is_old(name: str, seconds: float) -> bool:
        written = remote.files.modified(name)
        return now is not None and written is not None and (now - written).total_seconds() > seconds

    if now is None:
        log.warning("%s keeps no times, so nothing is removed from it", remote.url)
    return is_old


def _is_older(entry: StoreEntry, limit: float | None) -> bool:
    written = seconds(entry.created)
    return limit is None or written is None or written < limit
