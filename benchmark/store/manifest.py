"""Manifests of artifacts: their format, the check of a folder against its manifest, and reading verified files.

A manifest is one line of canonical JSON whose last member is the SHA-256 of everything before it, which detects any
changed byte. It lists the size and SHA-256 of every other file of the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, ValidationError

from ..core.config import Configuration
from ..errors import CorruptArtifactError, InvalidConfigurationError
from ..files import atomic
from ..files.documents import MAX_DEPTH, decode, depth
from ..files.tensors import pack, unpack
from ..files.tree import Tree
from ..files.untrusted import shown

if TYPE_CHECKING:
    from torch import Tensor

#: Format of the store, its manifests and its checkpoints; raised when an older privbench could not read them.
FORMAT = 1
NAME = "manifest.json"
TENSORS = ".safetensors"
MAX_BYTES = 1 << 26
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
#: A time in UTC; `maintenance.seconds` tells whether it is a real date.
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?([+]00:00|Z)$"
_SEAL = b',"checksum":"%s"}\n'
_SEAL_BYTES = len(_SEAL % (b"0" * 64))


class Sealed(Configuration):
    """One line of JSON that belongs to a kind and key and ends with a checksum of itself."""

    format: int = FORMAT
    kind: str
    key: str

    def encode(self) -> bytes:
        """Return the line."""
        return seal(self.model_dump(mode="python"))

    @classmethod
    def decode(cls, line: bytes, kind: str | None = None, key: str | None = None) -> Self:
        """Validate a line; its kind and key must be the given ones, and its format the current one, if given.

        Raises:
            CorruptArtifactError: says in one phrase what is wrong.
        """
        try:
            found = cls.model_validate(unseal(line))
        except ValidationError as cause:
            raise CorruptArtifactError(f"it is not a valid {cls.__name__.lower()}") from cause
        if kind is not None and (found.format, found.kind, found.key) != (FORMAT, kind, key):
            other = f"{found.kind} {found.key[:12]}, format {found.format}"
            raise CorruptArtifactError(f"it belongs to {shown(other)}")
        return found


class FileFacts(Configuration):
    """Size and hash that a file must have."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Sealed):
    """Description of an artifact."""

    created: str = Field(pattern=_TIME)
    inputs: dict[str, str]
    info: dict[str, Any]
    files: dict[str, FileFacts]


@dataclass(frozen=True)
class Artifact:
    """A stored result.

    Args:
        kind: of the stage that made it.
        key: SHA-256 of everything that determines it.
        path: its folder.
        manifest: its description.
    """

    kind: str
    key: str
    path: Path
    manifest: Manifest

    @property
    def info(self) -> dict[str, Any]:
        """JSON values given when it was written."""
        return self.manifest.info

    @property
    def inputs(self) -> dict[str, str]:
        """Keys of the artifacts that it was made from, by role."""
        return self.manifest.inputs

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of its groups of tensors."""
        names = (name for name in self.manifest.files if name.endswith(TENSORS))
        return tuple(sorted(name.removesuffix(TENSORS) for name in names))

    @property
    def digest(self) -> str:
        """SHA-256 of the names and SHA-256 of its files; equal for equal results, whenever and wherever computed."""
        return digest_of({name: facts.sha256 for name, facts in self.manifest.files.items()})

    def tensors(self, group: str) -> dict[str, Tensor]:
        """Read the tensors of a group, on the CPU, sorted by name.

        Raises:
            CorruptArtifactError: there is no such group, or its file does not match the manifest.
        """
        return unpack(self.file(group + TENSORS))

    def file(self, name: str) -> bytes:
        """Read a file and check it against the manifest.

        Raises:
            CorruptArtifactError: there is no such file, or it does not match the manifest.
        """
        facts = self.manifest.files.get(name)
        title = f"{self.kind} {self.key[:12]}"
        if facts is None:
            held = ", ".join(sorted(self.manifest.files)) or "no files"
            raise CorruptArtifactError(f"expected {title} to hold {name!r}, got {held}; run it again")
        path = self.path / name
        with atomic.storage_errors(path, "read"):
            try:
                data = tree_of(self.path).read(path, facts.bytes)
            except FileNotFoundError as cause:
                raise CorruptArtifactError(f"{path} was removed while {title} was in use; run it again") from cause
            except CorruptArtifactError:
                data = None
        if data is None or hashlib.sha256(data).hexdigest() != facts.sha256:
            raise CorruptArtifactError(f"{path} does not match its manifest; run it again to recompute it")
        return data


def digest_of(files: Mapping[str, str]) -> str:
    """Return the digest of an artifact from the SHA-256 of its files by name."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def tree_of(folder: Path) -> Tree:
    """Return the store that contains the folder of an artifact, ROOT/KIND/KEY[:2]/KEY."""
    return Tree(folder.parents[2])


def seal(value: dict[str, Any]) -> bytes:
    """Encode a value as one line of canonical JSON that ends with the checksum of the rest.

    Raises:
        InvalidConfigurationError: `value` is not JSON, or is deeper or larger than a manifest may be.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as cause:
        raise InvalidConfigurationError(f"expected stored values to be JSON, got one that is not: {cause}") from cause
    if len(text) > MAX_BYTES or depth(value) > MAX_DEPTH:
        raise InvalidConfigurationError(
            f"expected stored values to take at most {MAX_BYTES} bytes and {MAX_DEPTH} levels, "
            f"got {len(text)} and {depth(value)}; store tensors instead"
        )
    return _sealed(text[:-1].encode())


def unseal(line: bytes) -> dict[str, Any]:
    """Decode a sealed line.

    Raises:
        CorruptArtifactError: a byte was changed, lost or added.
    """
    body = line[:-_SEAL_BYTES]
    if not body.startswith(b"{") or line != _sealed(body):
        raise CorruptArtifactError("its checksum does not match")
    try:
        value: dict[str, Any] = decode(body + b"}")
    except ValueError as cause:
        raise CorruptArtifactError(f"it is not valid JSON: {cause}") from cause
    return value


def _sealed(body: bytes) -> bytes:
    return body + _SEAL % hashlib.sha256(body).hexdigest().encode()


def check_file_names(files: Iterable[str], groups: Iterable[str]) -> None:
    """Refuse names that are not plain file names, or that differ only in case.

    Args:
        files: names of files other than groups of tensors.
        groups: names of groups of tensors.

    Raises:
        InvalidConfigurationError: says which name is wrong.
    """
    seen = {NAME}
    for name, is_group in [*((name, False) for name in files), *((name, True) for name in groups)]:
        file = f"{name}{TENSORS}" if is_group else f"{name}"
        plain = _FILE_NAME.fullmatch(file) and ".." not in file and (is_group or not file.endswith(TENSORS))
        if not plain or file.casefold() in seen:
            raise InvalidConfigurationError(
                f"expected each {'group' if is_group else 'file'} of an artifact to have its own name of letters, "
                f"digits, '_', '-' and '.', got {name!r}; rename it"
            )
        seen.add(file.casefold())


def write_files(
    tree: Tree,
    folder: Path,
    manifest: Manifest,
    tensors: Mapping[str, Mapping[str, Tensor]],
    files: Mapping[str, bytes],
) -> Manifest:
    """Write all files of an artifact to an existing folder, the manifest last; returns the complete manifest.

    Args:
        tree: of the store.
        folder: of the artifact.
        manifest: without files.
        tensors: named tensors by group.
        files: other files by name.
    """
    facts = {
        name: FileFacts(bytes=len(data), sha256=tree.write_new(folder / name, [data])) for name, data in files.items()
    }
    for group, members in tensors.items():
        data = pack(members)
        name = group + TENSORS
        facts[name] = FileFacts(bytes=len(data), sha256=tree.write_new(folder / name, [data]))
    sealed = manifest.model_copy(update={"files": facts}).encode()
    tree.write_new(folder / NAME, [sealed])
    tree.sync_folder(folder)
    return Manifest.decode(sealed)


def examine(folder: Path, kind: str, key: str, *, contents: bool = True) -> Manifest:
    """Check the folder of an artifact against its manifest, which is returned.

    Args:
        folder: of the artifact.
        kind: that the manifest must have.
        key: that the manifest must have.
        contents: compare the SHA-256 of every file, too, not only names and sizes.

    Raises:
        CorruptArtifactError: says in one phrase what does not match.
        StorageError: the folder cannot be read.
    """
    with atomic.storage_errors(folder, "read"):
        try:
            return _examine(folder, kind, key, contents)
        except FileNotFoundError as cause:
            raise CorruptArtifactError(f"{Path(cause.filename or folder).name} is missing") from cause


def _examine(folder: Path, kind: str, key: str, contents: bool) -> Manifest:
    tree = tree_of(folder)
    sizes = _sizes(tree, folder)
    try:
        manifest = Manifest.decode(tree.read(folder / NAME, MAX_BYTES + _SEAL_BYTES), kind, key)
    except CorruptArtifactError as cause:
        raise CorruptArtifactError(f"{NAME} is damaged: {cause}") from cause
    for name in sorted(sizes.keys() ^ {NAME, *manifest.files}):
        raise CorruptArtifactError(f"{name} is {'not in the manifest' if name in sizes else 'missing'}")
    for name, facts in manifest.files.items():
        if sizes[name] != facts.bytes or (contents and tree.sha256(folder / name) != facts.sha256):
            raise CorruptArtifactError(f"{name} does not match the manifest")
    return manifest


def _sizes(tree: Tree, folder: Path) -> dict[str, int]:
    """Sizes of the files of an artifact; anything but regular files is refused."""
    if not tree.is_folder(folder):
        raise CorruptArtifactError(f"{folder.name} is not a folder")
    entries = tree.entries(folder)
    for name, facts in entries:
        if not stat.S_ISREG(facts.st_mode):
            raise CorruptArtifactError(f"{name} is not a regular file")
    return {name: facts.st_size for name, facts in entries}
