"""An exported target: a folder of one file of weights and a manifest that says what they are. Imports no torch.

DIR/manifest.json       what the target is, made for review
DIR/target.safetensors  its weights
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, JsonValue, StrictInt, StringConstraints, ValidationError, field_validator

from ..core.config import Budget, Configuration
from ..errors import CorruptArtifactError, IncompatibleRecordError, MissingDataError
from ..files.untrusted import parse_json, read_bounded, shown
from ..records.record import ArtifactReference, Choice, Hash, Name

if TYPE_CHECKING:
    from typing import Any

#: What every manifest of an export begins with, in words.
FORMAT = "privbench target"
#: Raised when the meaning or set of fields changes; older readers refuse newer exports.
SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS = "target.safetensors"
#: A larger manifest is not read.
MAX_MANIFEST = 4 << 20
#: Larger weights are not read.
MAX_WEIGHTS = 8 << 30
#: What of a protocol decides the network and what its accuracy means.
DECIDING = ("name", "version", "task", "image", "classes", "target_network", "attributes")
_AGAIN = "export it again with `privbench export`, or get it again"

Text = Annotated[str, StringConstraints(max_length=200)]


class Architecture(Configuration):
    """The network that the protocol names."""

    name: Name
    distribution: Text = Field(description="package that registers it")
    release: Text = Field(description="of that package, when the target was exported")
    version: int = Field(description="raised when a change of the network alters results")
    family: Text = Field("", description="the design that networks of other depths or widths share with it")
    pretraining: Text = Field("", description="the data behind the weights that training started from; empty if none")
    layers: tuple[Name, ...] = Field(description="names of the latents of the target, from input to output")


class Weights(Configuration):
    """The file of weights."""

    file: str = WEIGHTS
    bytes: int = Field(ge=8, le=MAX_WEIGHTS)
    sha256: Hash
    tensors: int = Field(ge=1)

    @field_validator("file")
    @classmethod
    def _stays_here(cls, name: str) -> str:
        if name != WEIGHTS:
            raise ValueError(f"{WEIGHTS}, beside the manifest")
        return name


class Answers(Configuration):
    """Logits for images of noise: whether a network was rebuilt right can be told without any data set.

    The images are `torch.randint(0, 256, (N, C, H, W), dtype=uint8)` of a generator seeded with `seed`.
    """

    seed: int = Field(ge=0, lt=2**63)
    logits: tuple[tuple[float, ...], ...] = Field(min_length=1, max_length=16)


class Decisions(Configuration):
    """What the target says of the first private test images.

    `said` holds a class for each image, or of attributes one text of `0` and `1` for each image.
    """

    seed: int = Field(ge=0, lt=2**63, description="of the noise of a target that draws some")
    said: tuple[StrictInt, ...] | tuple[Annotated[str, StringConstraints(strict=True, pattern="^[01]+$")], ...] = Field(
        max_length=4096
    )


class Training(Configuration):
    """How the target came about; the recipe is among the fields of the defense."""

    steps: dict[str, int] = Field(default_factory=dict, description="by loop, as far as a curve was recorded")
    seconds: float | None = Field(None, ge=0)
    device: Text = ""


class Exported(Configuration):
    """The manifest of an exported target."""

    format: Literal["privbench target"] = "privbench target"
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    privbench: Text = Field(description="version that exported")
    created: Text = Field(description="UTC, ISO 8601")
    protocol: dict[str, JsonValue] = Field(description="all that was fixed, see `Protocol`")
    dataset: Choice
    defense: Choice
    left_out: tuple[Name, ...] = Field((), description="fields that name files of the machine that trained")
    network: Architecture
    seed: int = Field(ge=0)
    budget: Budget
    test_accuracy: float = Field(ge=0, le=1, description="share of right decisions on the private test images")
    n: int = Field(ge=1, description="private test images")
    decisions: Decisions
    answers: Answers
    training: Training
    source: ArtifactReference = Field(description="the artifact of the store that was exported")
    weights: Weights

    @field_validator("protocol")
    @classmethod
    def _names_what_decides(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        absent = [name for name in DECIDING if name not in value]
        if absent:
            raise ValueError(f"a protocol with {', '.join(absent)}")
        return value

    @property
    def protocol_id(self) -> str:
        """Name and version, such as `mnist/v1`."""
        return shown(f"{self.protocol['name']}/v{self.protocol['version']}")

    @property
    def title(self) -> str:
        """Short name for messages."""
        return f"target {self.defense.name} on {self.protocol_id}, seed {self.seed}"

    def text(self) -> str:
        """The manifest as its file holds it."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: Path, sha256: str | None = None) -> Exported:
    """The manifest of an exported target.

    Args:
        folder: of the export.
        sha256: what the manifest must be, where a zoo says so; compared before anything is parsed.

    Raises:
        MissingDataError: there is no such folder, or no manifest in it.
        CorruptArtifactError: it is no manifest, or not the one that was promised.
        IncompatibleRecordError: it is of a newer privbench.
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
    """The manifest in the bytes of its file; see `read_manifest`."""
    if sha256 is not None and len(data) <= MAX_MANIFEST:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise CorruptArtifactError(
                f"expected {source} to have the SHA-256 {sha256[:16]}... that its zoo lists, got {found[:16]}...; "
                "get it again"
            )
    value = parse_json(data, source, MAX_MANIFEST)
    schema = value.get("schema_version")
    if value.get("format") != FORMAT or type(schema) is not int or schema < 1:
        raise CorruptArtifactError(f"expected {source} to be the manifest of an exported target, got another; {_AGAIN}")
    if schema > SCHEMA:
        raise IncompatibleRecordError(
            f"{source} has schema {shown(schema)} and this privbench reads up to {SCHEMA}; upgrade privbench"
        )
    try:
        return Exported.model_validate(value)
    except ValidationError as cause:
        raise CorruptArtifactError(_sentence(source, cause)) from None


def _sentence(source: str, cause: ValidationError) -> str:
    problem: Any = cause.errors(include_url=False)[0]
    where = shown(".".join(map(str, problem["loc"])) or "it")
    if problem["type"] == "missing":
        return f"expected {source} to have {where}, found none; {_AGAIN}"
    if problem["type"] == "extra_forbidden":
        return f"expected {source} to have known fields only, got {where}; {_AGAIN}"
    wanted = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {where} in {source} to be {shown(wanted)}, got {shown(repr(problem['input']))}; {_AGAIN}"


def read_weights(folder: Path, weights: Weights) -> bytes:
    """The file of weights, compared with its size and SHA-256 before anything is made of it.

    Raises:
        MissingDataError: it is not there.
        CorruptArtifactError: it is a link, truncated, or another file, such as a web page or a pickle.
    """
    path = folder / weights.file
    data = read_bounded(path, weights.bytes)
    sound = len(data) == weights.bytes and hashlib.sha256(data).hexdigest() == weights.sha256
    fault = _fault(path, data, sound, weights)
    if fault:
        raise CorruptArtifactError(
            f"expected {path} to be the weights of its manifest, got {fault}; get the file again"
        )
    return data


def _fault(path: Path, data: bytes, sound: bool, weights: Weights) -> str | None:
    """What the file is instead of the weights; `None` if it has their size and hash, and can be safetensors."""
    from ..files.safetensors_header import other_kind

    kind = other_kind(path, data[:512])
    if kind or sound:
        return kind
    if len(data) < weights.bytes:
        return f"a truncated file, {len(data):,} of {weights.bytes:,} bytes"
    if len(data) > weights.bytes:
        return f"a larger file than its {weights.bytes:,} bytes"
    return f"the SHA-256 {hashlib.sha256(data).hexdigest()[:16]}... where {weights.sha256[:16]}... is due"
