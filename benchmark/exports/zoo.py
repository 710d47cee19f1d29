"""A zoo: exported targets by name, in a folder or behind an https address, with the hashes that each must have.

ZOO/zoo.json            name -> folder, hashes, and what the target is
ZOO/NAME/manifest.json  ZOO/NAME/target.safetensors
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import Field, StringConstraints, ValidationError, field_validator

from ..core.config import Budget, Configuration
from ..core.paths import cache_root
from ..errors import (
    CorruptArtifactError,
    IncompatibleRecordError,
    InvalidConfigurationError,
    MissingDataError,
    PrivbenchError,
    StorageError,
    UnknownComponentError,
)
from ..files import atomic, downloads
from ..files.untrusted import inside, is_relative_folder, parse_json, read_bounded, shown
from ..records.record import Hash, Name
from . import manifest as exported
from .manifest import MANIFEST, MAX_MANIFEST, MAX_WEIGHTS, WEIGHTS, Exported, Text

log = logging.getLogger("privbench")
FORMAT = "privbench zoo"
#: Raised when the meaning or set of fields changes; older readers refuse newer zoos.
SCHEMA = 1
INDEX = "zoo.json"
#: A larger index is not read.
MAX_INDEX = 16 << 20
_NAME = r"^[a-z0-9]([a-z0-9_.-]{0,98}[a-z0-9_-])?$"
_LOCK_SECONDS = 60.0


class ManifestFacts(Configuration):
    """What a target's manifest must be."""

    bytes: int = Field(ge=2, le=MAX_MANIFEST)
    sha256: Hash


class WeightsFacts(Configuration):
    """What a target's weights must be."""

    bytes: int = Field(ge=8, le=MAX_WEIGHTS)
    sha256: Hash


class ZooEntry(Configuration):
    """A target of a zoo; all but the first three says what its manifest says."""

    folder: str
    manifest: ManifestFacts
    weights: WeightsFacts
    protocol: Text
    defense: Name
    network: Name
    seed: int
    budget: Budget
    test_accuracy: float = Field(ge=0, le=1)
    n: int = Field(ge=1)

    @field_validator("folder")
    @classmethod
    def _stays_inside(cls, folder: str) -> str:
        if not is_relative_folder(folder):
            raise ValueError("a plain relative path that stays inside the zoo")
        return folder


class Index(Configuration):
    """The file `zoo.json`."""

    format: Literal["privbench zoo"] = "privbench zoo"
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    targets: dict[Annotated[str, StringConstraints(pattern=_NAME)], ZooEntry] = Field(default_factory=dict)


@dataclass(frozen=True)
class Zoo:
    """An opened zoo.

    Args:
        place: its folder, or its address without `/zoo.json`.
        targets: by name.
    """

    place: Path | str
    targets: Mapping[str, ZooEntry]

    def entry(self, name: str) -> ZooEntry:
        """The target of that name.

        Raises:
            UnknownComponentError: there is none.
        """
        if name not in self.targets:
            raise UnknownComponentError(f"target of {self.place}", shown(name), self.targets)
        return self.targets[name]


def open_zoo(place: str | Path) -> Zoo:
    """Read the index of a zoo.

    Args:
        place: a folder, a `file://` or an `https://` address; the latter may end in `/zoo.json`.

    Raises:
        InvalidConfigurationError: it is another kind of address.
        MissingDataError: there is none, or it cannot be fetched.
        CorruptArtifactError: its index is damaged, or names a folder outside.
        IncompatibleRecordError: it is of a newer privbench.
    """
    found = _place(place)
    if isinstance(found, str):
        return Zoo(found, _parse(downloads.fetch(f"{found}/{INDEX}", MAX_INDEX), f"{found}/{INDEX}").targets)
    if not (found / INDEX).exists():
        raise MissingDataError(
            f"expected {shown(str(found), 300)} to be a zoo, found no {INDEX} there; make one with "
            "`privbench zoo add EXPORT ZOO`"
        )
    return Zoo(found, _read(found).targets)


def _place(place: str | Path) -> Path | str:
    """The folder of a zoo, or its address without the name of its index."""
    text = str(place)
    if isinstance(place, Path) or "://" not in text:
        return Path(text).expanduser()
    try:
        parts = urlsplit(text)
    except ValueError:
        raise InvalidConfigurationError(f"expected a folder or an https:// address, got {shown(repr(text))}") from None
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidConfigurationError(
            f"expected the address of a zoo without a query, a fragment or a password, got "
            f"{shown(repr(text))}; leave it out"
        )
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidConfigurationError(
                f"expected file:///FOLDER of this machine, got {shown(repr(text))}; correct it"
            )
        return Path(url2pathname(parts.path))
    downloads.require_https(text)
    return text.rstrip("/").removesuffix(f"/{INDEX}").rstrip("/")


def _read(root: Path) -> Index:
    return _parse(read_bounded(root / INDEX, MAX_INDEX), str(root / INDEX))


def _parse(data: bytes, source: str) -> Index:
    value = parse_json(data, source, MAX_INDEX)
    schema = value.get("schema_version")
    if value.get("format") != FORMAT or type(schema) is not int or schema < 1:
        raise CorruptArtifactError(f"expected {source} to be the index of a zoo, got another file; get it again")
    if schema > SCHEMA:
        raise IncompatibleRecordError(
            f"{source} has schema {shown(schema)} and this privbench reads up to {SCHEMA}; upgrade privbench"
        )
    try:
        return Index.model_validate(value)
    except ValidationError as cause:
        problem = cause.errors(include_url=False)[0]
        where = shown(".".join(map(str, problem["loc"])))
        wanted = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise CorruptArtifactError(
            f"expected {where} in {source} to be {shown(wanted)}, got {shown(repr(problem['input']))}; tell its owner"
        ) from None


def describe(manifest: Exported, folder: str, text: bytes) -> ZooEntry:
    """The entry of an exported target whose manifest file holds `text`."""
    return ZooEntry(
        folder=folder,
        manifest=ManifestFacts(bytes=len(text), sha256=hashlib.sha256(text).hexdigest()),
        weights=WeightsFacts(bytes=manifest.weights.bytes, sha256=manifest.weights.sha256),
        protocol=manifest.protocol_id,
        defense=manifest.defense.name,
        network=manifest.network.name,
        seed=manifest.seed,
        budget=manifest.budget,
        test_accuracy=manifest.test_accuracy,
        n=manifest.n,
    )


def locate(zoo: Zoo, name: str) -> Path:
    """The folder of a target whose manifest is the one that the zoo lists; one behind an address is fetched first.

    What was fetched stays in the user's cache, under the hash of its manifest, and is compared with its hashes again.

    Raises:
        PrivbenchError: there is no such target, it cannot be fetched, or is not what it should be.
    """
    entry = zoo.entry(name)
    if isinstance(zoo.place, str):
        return _cached(zoo.place, name, entry)
    folder = inside(zoo.place, entry.folder)
    _require_listed(exported.read_manifest(folder, entry.manifest.sha256), entry, f"{zoo.place} {name}")
    return folder


def _require_listed(manifest: Exported, entry: ZooEntry, what: str) -> None:
    """Refuse an index that says something else of a target than its manifest, whose hash it has."""
    said = entry.model_dump(exclude={"folder", "manifest"})
    held = describe(manifest, entry.folder, b"{}").model_dump(exclude={"folder", "manifest"})
    for field, value in said.items():
        if value != held[field]:
            raise CorruptArtifactError(
                f"expected the zoo to list {field} {shown(held[field])} for {what}, as its manifest says, got "
                f"{shown(value)}; tell its owner"
            )


def _cached(place: str, name: str, entry: ZooEntry) -> Path:
    folder = cache_root() / "zoo" / entry.manifest.sha256
    if folder.exists():
        try:
            manifest = exported.read_manifest(folder, entry.manifest.sha256)
            exported.read_weights(folder, manifest.weights)
            _require_listed(manifest, entry, name)
            return folder
        except (CorruptArtifactError, MissingDataError) as damage:
            log.warning("%s; fetching it again", damage)
    _download(place, name, entry, folder)
    return folder


def _download(place: str, name: str, entry: ZooEntry, folder: Path) -> None:
    """Fetch a target into `folder`, verified before it is put there."""
    from ..files.atomic import publish

    base = f"{place}/{entry.folder}"
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    with _storage_errors(folder):
        atomic.make_folder(folder.parent)
        temporary.mkdir()
        try:
            text = downloads.fetch(f"{base}/{MANIFEST}", entry.manifest.bytes)
            manifest = exported.parse_manifest(text, f"{base}/{MANIFEST}", entry.manifest.sha256)
            _require_listed(manifest, entry, name)
            atomic.write_new(temporary / MANIFEST, text)
            downloads.save(f"{base}/{WEIGHTS}", temporary / WEIGHTS, entry.weights.bytes)
            _verify(temporary, manifest, f"{base}/{WEIGHTS}")
            publish(temporary, folder)
        finally:
            with contextlib.suppress(OSError):
                atomic.remove(temporary)


def _verify(folder: Path, manifest: Exported, url: str) -> None:
    try:
        exported.read_weights(folder, manifest.weights)
    except CorruptArtifactError as cause:
        raise CorruptArtifactError(str(cause).replace(str(folder / WEIGHTS), url)) from None


def fetch(zoo: Zoo, name: str, folder: Path) -> Exported:
    """Copy a target of a zoo to a folder of the caller's, verified; an earlier export there is replaced.

    Raises:
        PrivbenchError: there is no such target, it is not what it should be, or the folder cannot be written.
    """
    from ..files.atomic import write_folder
    from .export import require_replaceable

    require_replaceable(folder)
    source = locate(zoo, name)
    text = read_bounded(source / MANIFEST, MAX_MANIFEST)
    manifest = exported.parse_manifest(text, str(source / MANIFEST), zoo.entry(name).manifest.sha256)
    write_folder(folder, {WEIGHTS: exported.read_weights(source, manifest.weights), MANIFEST: text})
    return manifest


def add(source: Path, root: Path, name: str | None = None) -> tuple[str, ZooEntry]:
    """Copy an exported target into a zoo, which is made where there is none; the target must load here.

    Args:
        source: folder of the export.
        root: folder of the zoo.
        name: in the zoo; by default made of protocol, defense, budget, seed and the hash of the weights.

    Returns:
        The name, and what the zoo now lists.

    Raises:
        InvalidConfigurationError: the name is taken by another target, or is no name; or `root` is something else.
        PrivbenchError: the export is not sound, or the zoo cannot be written.
    """
    from ..files.atomic import write_folder
    from .export import require_replaceable
    from .load import load_export

    load_export(source)
    text = read_bounded(source / MANIFEST, MAX_MANIFEST)
    manifest = exported.parse_manifest(text, str(source / MANIFEST))
    content = exported.read_weights(source, manifest.weights)
    name = name or _usual_name(manifest)
    if not re.fullmatch(_NAME, name) or name == INDEX:
        raise InvalidConfigurationError(
            f"expected --name to be of lower-case letters, digits, '_', '-' and '.', got {shown(repr(name))}; "
            "choose another"
        )
    entry = describe(manifest, name, text)
    with _storage_errors(root), _changing(root) as index:
        known = index.targets.get(name)
        if known is not None and (known.manifest, known.weights) != (entry.manifest, entry.weights):
            raise InvalidConfigurationError(
                f"expected --name to be new in {root}, got {name!r}, which is another target there; choose another"
            )
        require_replaceable(root / name)
        write_folder(root / name, {WEIGHTS: content, MANIFEST: text})
        _write(root, index.model_copy(update={"targets": {**index.targets, name: entry}}))
    return name, entry


def _usual_name(manifest: Exported) -> str:
    words = f"{manifest.protocol['name']}-{manifest.defense.name}-{manifest.budget}-seed{manifest.seed}"
    plain = re.sub(r"[^a-z0-9_.-]", "-", words.lower()).lstrip("-_.")
    return f"{plain[:80]}-{manifest.weights.sha256[:8]}"


@contextlib.contextmanager
def _changing(root: Path) -> Iterator[Index]:
    """The index of a zoo, which nobody else changes meanwhile."""
    from filelock import FileLock, Timeout

    if root.exists() and not (root / INDEX).exists():
        others = [path.name for path in atomic.children(root) if not path.name.startswith(".")]
        if others or not root.is_dir():
            raise InvalidConfigurationError(
                f"expected ZOO to be a zoo or a new folder, got {root}, which has no {INDEX}; choose another"
            )
    atomic.make_folder(root.absolute())
    try:
        with FileLock(root / ".zoo.lock", timeout=_LOCK_SECONDS):
            yield _read(root) if (root / INDEX).exists() else Index()
    except Timeout as cause:
        raise StorageError(f"another process has been changing {root} for {_LOCK_SECONDS:.0f} s; try again") from cause


def _write(root: Path, index: Index) -> None:
    import json

    text = json.dumps(index.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    temporary = root / f".{INDEX}.{secrets.token_hex(4)}"
    try:
        atomic.write_new(temporary, text.encode())
        temporary.replace(root / INDEX)
        atomic.sync_folder(root)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PrivbenchError:
        raise
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise StorageError(f"cannot write {path}: {reason}; choose another folder") from cause
