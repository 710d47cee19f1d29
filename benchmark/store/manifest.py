"""What an artifact is made of: its manifest, the check of a folder against it, and reading what it holds.

A manifest is one line of canonical JSON whose last member is the SHA-256 of all that stands before it, so that any
changed byte shows. It lists size and SHA-256 of every other file of the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from ..core.config import Configuration
from ..errors import CorruptArtifactError, InvalidConfigurationError
from ..files import atomic
from ..files.documents import MAX_DEPTH, depth
from ..files.tensors import unpack

if TYPE_CHECKING:
    from torch import Tensor

#: Of the store, its manifests and its checkpoints; raised when an older privbench could not read them.
FORMAT = 1
NAME = "manifest.json"
TENSORS = ".safetensors"
MAX_BYTES = 1 << 26
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
#: Digits alone, in UTC; whether it is a real date shows when its age is asked for.
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?([+]00:00|Z)$"
_SEAL = b',"checksum":"%s"}\n'
_SEAL_BYTES = len(_SEAL % (b"0" * 64))


class FileFacts(Configuration):
    """What a file must be."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Configuration):
    """What an artifact says of itself."""

    format: int = FORMAT
    kind: str
    key: str
    created: str = Field(pattern=_TIME)
    inputs: dict[str, str]
    info: dict[str, Any]
    files: dict[str, FileFacts]

    def encode(self) -> bytes:
        """The bytes of the manifest file."""
        return seal(self.model_dump(mode="python"))

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest in the bytes of its file.

        Raises:
            CorruptArtifactError: a byte was changed, or it is no manifest.
        """
        try:
            return cls.model_validate(unseal(data))
        except ValidationError as cause:
            raise CorruptArtifactError("it is no manifest") from cause


@dataclass(frozen=True)
class Artifact:
    """A stored result.

    Args:
        kind: the stage that made it.
        key: SHA-256 of all that decides it.
        path: its folder.
        manifest: its facts.
    """

    kind: str
    key: str
    path: Path
    manifest: Manifest

    @property
    def info(self) -> dict[str, Any]:
        """The JSON facts given when it was written."""
        return self.manifest.info

    @property
    def inputs(self) -> dict[str, str]:
        """Keys of the artifacts it was made from, by role."""
        return self.manifest.inputs

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of its groups of tensors."""
        names = (name for name in self.manifest.files if name.endswith(TENSORS))
        return tuple(sorted(name.removesuffix(TENSORS) for name in names))

    @property
    def digest(self) -> str:
        """SHA-256 of the names and SHA-256 of its files; equal for equal results, whenever and wherever made."""
        pairs = sorted((name, facts.sha256) for name, facts in self.manifest.files.items())
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors of a group, on the CPU, sorted by name.

        Raises:
            CorruptArtifactError: there is no such group, or its file does not match the manifest.
        """
        return unpack(self.file(group + TENSORS))

    def file(self, name: str) -> bytes:
        """The bytes of a file, checked against the manifest.

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
                data = atomic.read(path)
            except FileNotFoundError as cause:
                raise CorruptArtifactError(f"{path} was removed while {title} was in use; run it again") from cause
        if hashlib.sha256(data).hexdigest() != facts.sha256:
            raise CorruptArtifactError(f"{path} does not match its manifest; run it again to make it anew")
        return data


def seal(value: dict[str, Any]) -> bytes:
    """One line of canonical JSON that ends with the checksum of what stands before it.

    Raises:
        InvalidConfigurationError: `value` is not JSON, or is deeper or larger than a manifest may be.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as cause:
        raise InvalidConfigurationError(
            f"expected stored facts to be JSON, got a value that is not: {cause}"
        ) from cause
    if len(text) > MAX_BYTES or depth(value) > MAX_DEPTH:
        raise InvalidConfigurationError(
            f"expected stored facts to take at most {MAX_BYTES} bytes and {MAX_DEPTH} levels, "
            f"got {len(text)} and {depth(value)}; store tensors instead"
        )
    return _sealed(text[:-1].encode())


def unseal(line: bytes) -> dict[str, Any]:
    """The value of a sealed line.

    Raises:
        CorruptArtifactError: a byte was changed, lost or added.
    """
    body = line[:-_SEAL_BYTES]
    if not body.startswith(b"{") or line != _sealed(body):
        raise CorruptArtifactError("its checksum does not match")
    try:
        value: dict[str, Any] = json.loads(body + b"}")
    except (ValueError, RecursionError) as cause:
        raise CorruptArtifactError("it is not JSON") from cause
    return value


def _sealed(body: bytes) -> bytes:
    return body + _SEAL % hashlib.sha256(body).hexdigest().encode()


def check_file_names(files: Iterable[str], groups: Iterable[str]) -> None:
    """Refuse names that are not plain file names, or that some file systems take for the same.

    Args:
        files: names of files other than groups of tensors.
        groups: names of groups of tensors.

    Raises:
        InvalidConfigurationError: names the culprit.
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


def examine(folder: Path, kind: str, key: str, *, contents: bool = True) -> Manifest:
    """The manifest of an artifact, after checking the folder against it.

    Args:
        folder: of the artifact.
        kind: what the manifest must say.
        key: what the manifest must say.
        contents: also compare the SHA-256 of every file, not only names and sizes.

    Raises:
        CorruptArtifactError: says in one phrase what does not match.
        OSError: the folder cannot be read.
    """
    try:
        return _examine(folder, kind, key, contents)
    except FileNotFoundError as cause:
        raise CorruptArtifactError(f"{Path(cause.filename or folder).name} is missing") from cause


def _examine(folder: Path, kind: str, key: str, contents: bool) -> Manifest:
    sizes = _sizes(folder)
    if sizes.get(NAME, 0) > MAX_BYTES + _SEAL_BYTES:
        raise CorruptArtifactError(f"{NAME} is too large")
    try:
        manifest = Manifest.decode(atomic.read(folder / NAME))
    except CorruptArtifactError as cause:
        raise CorruptArtifactError(f"{NAME} is damaged: {cause}") from cause
    if (manifest.format, manifest.kind, manifest.key) != (FORMAT, kind, key):
        raise CorruptArtifactError(f"{NAME} is of {manifest.kind} {manifest.key[:12]}, format {manifest.format}")
    for name in sorted(sizes.keys() ^ {NAME, *manifest.files}):
        raise CorruptArtifactError(f"{name} is {'not in the manifest' if name in sizes else 'missing'}")
    for name, facts in manifest.files.items():
        if sizes[name] != facts.bytes or (contents and atomic.sha256(folder / name) != facts.sha256):
            raise CorruptArtifactError(f"{name} does not match the manifest")
    return manifest


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of the files of an artifact, which are all regular files."""
    if folder.is_symlink() or not folder.is_dir():
        raise CorruptArtifactError(f"{folder.name} is not a folder")
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            raise CorruptArtifactError(f"{entry.name} is not a regular file")
    return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
