"""Exported targets: a folder with a file of weights and a manifest that describes it. Imports no torch.

DIR/manifest.json       description of the target
DIR/target.safetensors  its weights
"""

import hashlib
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, JsonValue, StrictInt, StringConstraints, field_validator

from ..core.config import Budget, Configuration
from ..errors import CorruptArtifactError, MissingDataError
from ..files.documents import Document
from ..files.safetensors_header import other_kind
from ..files.untrusted import read_bounded, shown
from ..records.record import ArtifactReference, Choice, Hash, Name

FORMAT: Final = "privbench target"
#: Raised when the meaning or set of fields changes; older readers refuse newer exports.
SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS = "target.safetensors"
#: Larger manifests are refused.
MAX_MANIFEST = 4 << 20
#: Larger weights are refused.
MAX_WEIGHTS = 8 << 30
#: Fields of a protocol that determine the network and the meaning of its accuracy.
DECIDING = ("name", "version", "task", "image", "classes", "target_network", "attributes")

Text = Annotated[str, StringConstraints(max_length=200)]


class Architecture(Configuration):
    """The network that the protocol names."""

    name: Name
    distribution: Text = Field(description="package that registers it")
    release: Text = Field(description="of that package, when the target was exported")
    version: int = Field(description="raised when a change of the network alters results")
    family: Text = Field("", description="design that it shares with networks of other depths or widths")
    pretraining: Text = Field("", description="data that the initial weights were trained on; empty if none")
    layers: tuple[Name, ...] = Field(description="names of the latents of the target, from input to output")


class Weights(Configuration):
    """The file of weights."""

    file: str = WEIGHTS
    bytes: int = Field(ge=8, le=MAX_WEIGHTS)
    sha256: Hash
    tensors: int = Field(ge=1)

    @field_validator("file")
    @classmethod
    def _is_beside_the_manifest(cls, name: str) -> str:
        if name != WEIGHTS:
            raise ValueError(f"{WEIGHTS}, beside the manifest")
        return name


class Answers(Configuration):
    """Logits for images of noise, to verify a rebuilt network without a data set.

    The images are `torch.randint(0, 256, (N, C, H, W), dtype=uint8)` of a generator seeded with `seed`.
    """

    seed: int = Field(ge=0, lt=2**63)
    logits: tuple[tuple[float, ...], ...] = Field(min_length=1, max_length=16)


class Decisions(Configuration):
    """Decisions of the target for the first private test images.

    `said` holds a class for each image, or, for attributes, a string of `0` and `1` for each image.
    """

    seed: int = Field(ge=0, lt=2**63, description="of a stochastic target")
    said: tuple[StrictInt, ...] | tuple[Annotated[str, StringConstraints(strict=True, pattern="^[01]+$")], ...] = Field(
        max_length=4096
    )


class Training(Configuration):
    """Training of the target; the recipe is among the fields of the defense."""

    steps: dict[str, int] = Field(default_factory=dict, description="by loop, for loops with a recorded curve")
    seconds: float | None = Field(None, ge=0)
    device: Text = ""


class Exported(Document):
    """The manifest of an exported target."""

    document_kind: ClassVar[str] = "the manifest of an exported target"
    remedy: ClassVar[str] = "export it again with `privbench export`, or get it again"
    max_bytes: ClassVar[int] = MAX_MANIFEST

    format: Literal["privbench target"] = FORMAT
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    privbench: Text = Field(description="version that exported")
    created: Text = Field(description="UTC, ISO 8601")
    protocol: dict[str, JsonValue] = Field(description="see `Protocol`")
    dataset: Choice
    defense: Choice
    left_out: tuple[Name, ...] = Field((), description="fields that name files of the machine that trained it")
    network: Architecture
    seed: int = Field(ge=0)
    budget: Budget
    test_accuracy: float = Field(ge=0, le=1, description="fraction of correct decisions on the private test images")
    n: int = Field(ge=1, description="number of private test images")
    decisions: Decisions
    answers: Answers
    training: Training
    source: ArtifactReference = Field(description="the artifact of the store that was exported")
    weights: Weights

    @field_validator("protocol")
    @classmethod
    def _determines_the_network(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        absent = [name for name in DECIDING if name not in value]
        if absent:
            raise ValueError(f"expected {', '.join(absent)} in the protocol, found none")
        return value

    @property
    def protocol_id(self) -> str:
        """Name and version, such as `mnist/v1`."""
        return shown(f"{self.protocol['name']}/v{self.protocol['version']}")

    @property
    def title(self) -> str:
        """Short name for messages."""
        return f"target {self.defense.name} on {self.protocol_id}, seed {self.seed}"


def read_manifest(folder: Path, sha256: str | None = None) -> Exported:
    """Read the manifest of an exported target.

    Args:
        folder: of the export.
        sha256: of the manifest as its zoo lists it; compared before anything is parsed.

    Raises:
        MissingDataError: the folder or its manifest does not exist.
        CorruptArtifactError: it is not a manifest, or not the listed one.
        IncompatibleRecordError: a newer privbench wrote it.
    """
    if not folder.is_dir():
        raise MissingDataError(_no_folder(folder))
    path = folder / MANIFEST
    if not path.is_symlink() and not path.exists():
        raise MissingDataError(
            f"expected {folder} to be an exported target, got a folder without {MANIFEST}; make one with "
            "`privbench export`"
        )
    return parse_manifest(read_bounded(path, MAX_MANIFEST), str(path), sha256)


def _no_folder(path: Path) -> str:
    if path.suffix.lower() in (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin"):
        return (
            f"expected the folder of an exported target, got {path}, a kind of file that can run code when read; train "
            "the target here and export it with `privbench export`"
        )
    if path.is_file():
        return f"expected the folder of an exported target, got the file {path}; name the folder with its {MANIFEST}"
    return f"expected {path} to be the folder of an exported target, found none; make it with `privbench export`"


def parse_manifest(data: bytes, source: str, sha256: str | None = None) -> Exported:
    """Parse the content of a manifest; see `read_manifest`."""
    if sha256 is not None and len(data) <= MAX_MANIFEST:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise CorruptArtifactError(
                f"expected {source} to have the SHA-256 {sha256[:16]}... that its zoo lists, got {found[:16]}...; "
                "get it again"
            )
    return Exported.parse(data, source)


def read_weights(folder: Path, weights: Weights) -> bytes:
    """Read the file of weights and check its size and SHA-256.

    Raises:
        MissingDataError: it does not exist.
        CorruptArtifactError: it is a link, truncated, or another file, such as a web page or a pickle.
    """
    path = folder / weights.file
    data = read_bounded(path, weights.bytes)
    valid = len(data) == weights.bytes and hashlib.sha256(data).hexdigest() == weights.sha256
    fault = _fault(path, data, valid, weights)
    if fault:
        raise CorruptArtifactError(
            f"expected {path} to be the weights of its manifest, got {fault}; get the file again"
        )
    return data


def _fault(path: Path, data: bytes, valid: bool, weights: Weights) -> str | None:
    """Describe what the file is instead of the weights; `None` if it has their size and hash and may be safetensors."""
    kind = other_kind(path, data[:512])
    if kind or valid:
        return kind
    if len(data) < weights.bytes:
        return f"a truncated file, {len(data):,} of {weights.bytes:,} bytes"
    if len(data) > weights.bytes:
        return f"a file larger than {weights.bytes:,} bytes"
    return f"the SHA-256 {hashlib.sha256(data).hexdigest()[:16]}... instead of {weights.sha256[:16]}..."
