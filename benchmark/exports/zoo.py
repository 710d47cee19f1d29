"""Zoos: exported targets by name, with their hashes, in a folder or at an https address.

ZOO/zoo.json            folder, hashes and description of each target
ZOO/NAME/manifest.json  ZOO/NAME/target.safetensors
"""

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import Field, StringConstraints, field_validator

from ..core.config import Budget, Configuration
from ..core.paths import cache_root
from ..errors import (
    CorruptArtifactError,
    InvalidConfigurationError,
    MissingDataError,
    StorageError,
    UnknownComponentError,
)
from ..files import atomic, downloads
from ..files.atomic import write_folder
from ..files.documents import Document
from ..files.locks import lock
from ..files.tree import Tree
from ..files.untrusted import inside, is_relative_folder, read_bounded, shown
from ..records.record import Hash, Name
from . import manifest as exported
from .manifest import MANIFEST, MAX_MANIFEST, MAX_WEIGHTS, WEIGHTS, Exported, Text

log = logging.getLogger("privbench")
#: Raised when the meaning or set of fields changes; older readers refuse newer zoos.
SCHEMA = 1
INDEX = "zoo.json"
_NAME = r"^[a-z0-9]([a-z0-9_.-]{0,98}[a-z0-9_-])?$"
_LOCK_SECONDS, _POLL_SECONDS = 60.0, 0.1


class ManifestFacts(Configuration):
    """Size and hash of the manifest of a target."""

    bytes: int = Field(ge=2, le=MAX_MANIFEST)
    sha256: Hash


class WeightsFacts(Configuration):
    """Size and hash of the weights of a target."""

    bytes: int = Field(ge=8, le=MAX_WEIGHTS)
    sha256: Hash


class ZooEntry(Configuration):
    """A target of a zoo; all fields but the first three repeat its manifest."""

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


class Index(Document):
    """The file `zoo.json`."""

    document_kind: ClassVar[str] = "the index of a zoo"
    remedy: ClassVar[str] = "get it again, or tell its owner"
    max_bytes: ClassVar[int] = 16 << 20

    format: Literal["privbench zoo"] = "privbench zoo"
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    targets: dict[Annotated[str, StringConstraints(pattern=_NAME)], ZooEntry] = Field(default_factory=dict)


@dataclass(frozen=True)
class Zoo:
    """An opened zoo.

    Args:
        address: its folder, or its URL without `/zoo.json`.
        targets: by name.
    """

    address: Path | str
    targets: Mapping[str, ZooEntry]

    def entry(self, name: str) -> ZooEntry:
        """Return the target of that name.

        Raises:
            UnknownComponentError: there is none.
        """
        if name not in self.targets:
            raise UnknownComponentError(f"target of {self.address}", shown(name), self.targets)
        return self.targets[name]


def open_zoo(address: str | Path) -> Zoo:
    """Read the index of a zoo.

    Args:
        address: a folder, a `file://` or an `https://` URL; the last may end in `/zoo.json`.

    Raises:
        InvalidConfigurationError: it is another kind of URL.
        MissingDataError: there is no zoo, or it cannot be fetched.
        CorruptArtifactError: its index is damaged, or names a folder outside.
        IncompatibleRecordError: a newer privbench made it.
    """
    found = _parse_address(address)
    if isinstance(found, str):
        url = f"{found}/{INDEX}"
        return Zoo(found, Index.parse(downloads.fetch(url, Index.max_bytes), url).targets)
    if not (found / INDEX).exists():
        raise MissingDataError(
            f"expected {shown(str(found), 300)} to be a zoo, found no {INDEX} there; make one with "
            "`privbench zoo add EXPORT ZOO`"
        )
    return Zoo(found, Index.read(found / INDEX).targets)


def _parse_address(address: str | Path) -> Path | str:
    """Return the folder of a zoo, or its URL without the name of its index."""
    text = str(address)
    if isinstance(address, Path) or "://" not in text:
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


def describe(manifest: Exported, folder: str, text: bytes) -> ZooEntry:
    """Make the entry of an exported target from its manifest and the content `text` of the manifest file."""
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
    """Return the folder of a target, whose manifest matches the zoo; a target at a URL is fetched first.

    Fetched targets stay in the user's cache, under the hash of their manifest, and are verified again at each use.

    Raises:
        PrivbenchError: there is no such target, it cannot be fetched, or it does not match its hashes.
    """
    entry = zoo.entry(name)
    if isinstance(zoo.address, str):
        return _cached(zoo.address, name, entry)
    folder = inside(zoo.address, entry.folder)
    _require_listed(exported.read_manifest(folder, entry.manifest.sha256), entry, f"{zoo.address} {name}")
    return folder


def _require_listed(manifest: Exported, entry: ZooEntry, what: str) -> None:
    """Refuse an index that contradicts the manifest of a target."""
    listed = entry.model_dump(exclude={"folder", "manifest"})
    expected = describe(manifest, entry.folder, b"{}").model_dump(exclude={"folder", "manifest"})
    for field, value in listed.items():
        if value != expected[field]:
            raise CorruptArtifactError(
                f"expected the zoo to list {field} {shown(expected[field])} for {what}, as in its manifest, got "
                f"{shown(value)}; tell its owner"
            )


def _cached(url: str, name: str, entry: ZooEntry) -> Path:
    folder = cache_root() / "zoo" / entry.manifest.sha256
    if folder.exists():
        try:
            manifest = exported.read_manifest(folder, entry.manifest.sha256)
            exported.read_weights(folder, manifest.weights)
            _require_listed(manifest, entry, name)
            return folder
        except (CorruptArtifactError, MissingDataError) as damage:
            log.warning("%s; fetching it again", damage)
    _download(f"{url}/{entry.folder}", name, entry, folder)
    return folder


def _download(url: str, name: str, entry: ZooEntry, folder: Path) -> None:
    """Fetch a target and verify it before `folder` is replaced."""
    with _storage_errors(folder), atomic.replaced_folder(folder) as temporary:
        text = downloads.fetch(f"{url}/{MANIFEST}", entry.manifest.bytes)
        manifest = exported.parse_manifest(text, f"{url}/{MANIFEST}", entry.manifest.sha256)
        _require_listed(manifest, entry, name)
        atomic.write_new(temporary / MANIFEST, text)
        downloads.save(f"{url}/{WEIGHTS}", temporary / WEIGHTS, entry.weights.bytes)
        try:
            exported.read_weights(temporary, manifest.weights)
        except CorruptArtifactError as cause:
            raise CorruptArtifactError(str(cause).replace(str(temporary / WEIGHTS), f"{url}/{WEIGHTS}")) from None


def fetch(zoo: Zoo, name: str, folder: Path) -> Exported:
    """Copy a target of a zoo to a folder, verified; an earlier export there is replaced.

    Raises:
        PrivbenchError: there is no such target, it does not match its hashes, or the folder cannot be written.
    """
    from .export import require_replaceable

    require_replaceable(folder)
    source = locate(zoo, name)
    text = read_bounded(source / MANIFEST, MAX_MANIFEST)
    manifest = exported.parse_manifest(text, str(source / MANIFEST), zoo.entry(name).manifest.sha256)
    write_folder(folder, {WEIGHTS: exported.read_weights(source, manifest.weights), MANIFEST: text})
    return manifest


def add(source: Path, root: Path, name: str | None = None) -> tuple[str, ZooEntry]:
    """Copy an exported target to a zoo, which is made if there is none; the target must load here.

    Args:
        source: folder of the export.
        root: folder of the zoo.
        name: in the zoo; by default made of protocol, defense, budget, seed and the hash of the weights.

    Returns:
        The name and the new entry.

    Raises:
        InvalidConfigurationError: another target has the name, the name is invalid, or `root` is something else.
        PrivbenchError: the export is invalid, or the zoo cannot be written.
    """
    from .export import require_replaceable
    from .load import load_export

    load_export(source)
    text = read_bounded(source / MANIFEST, MAX_MANIFEST)
    manifest = exported.parse_manifest(text, str(source / MANIFEST))
    content = exported.read_weights(source, manifest.weights)
    name = name or _default_name(manifest)
    if not re.fullmatch(_NAME, name) or name == INDEX:
        raise InvalidConfigurationError(
            f"expected --name to consist of lower-case letters, digits, '_', '-' and '.', got {shown(repr(name))}; "
            "choose another"
        )
    entry = describe(manifest, name, text)
    with _storage_errors(root), _locked_index(root) as index:
        known = index.targets.get(name)
        if known is not None and (known.manifest, known.weights) != (entry.manifest, entry.weights):
            raise InvalidConfigurationError(
                f"expected --name to be new in {root}, got {name!r}, which is another target there; choose another"
            )
        require_replaceable(root / name)
        write_folder(root / name, {WEIGHTS: content, MANIFEST: text})
        index = index.model_copy(update={"targets": {**index.targets, name: entry}})
        atomic.write_file(root / INDEX, index.text().encode())
    return name, entry


def _default_name(manifest: Exported) -> str:
    words = f"{manifest.protocol['name']}-{manifest.defense.name}-{manifest.budget}-seed{manifest.seed}"
    plain = re.sub(r"[^a-z0-9_.-]", "-", words.lower()).lstrip("-_.")
    return f"{plain[:80]}-{manifest.weights.sha256[:8]}"


@contextlib.contextmanager
def _locked_index(root: Path) -> Iterator[Index]:
    """Yield the index of a zoo while holding the lock of the zoo."""
    if root.exists() and not (root / INDEX).exists():
        others = [path.name for path in atomic.children(root) if not path.name.startswith(".")]
        if others or not root.is_dir():
            raise InvalidConfigurationError(
                f"expected ZOO to be a zoo or a new folder, got {root}, which has no {INDEX}; choose another"
            )
    atomic.make_folder(root.absolute())
    until = time.monotonic() + _LOCK_SECONDS
    while (held := lock(Tree(root), root / ".zoo.lock")) is None:
        if time.monotonic() > until:
            raise StorageError(f"another process has been changing {root} for {_LOCK_SECONDS:.0f} s; try again")
        time.sleep(_POLL_SECONDS)
    try:
        yield Index.read(root / INDEX) if (root / INDEX).exists() else Index()
    finally:
        os.close(held)


def _storage_errors(path: Path) -> AbstractContextManager[None]:
    return atomic.storage_errors(path, otherwise="choose another folder")
