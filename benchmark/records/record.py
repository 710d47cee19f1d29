"""Records: the JSON result of one cell, its schema, reading and writing.

A record is self-contained: it can be read and reported without the components that made it, and its command runs the
cell again. Files are small and easy to review: sorted keys, one line per number or per short list.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from ..core.config import BUILT_IN, Access, Budget, Configuration, Definition
from ..errors import CorruptArtifactError, IncompatibleRecordError, MissingDataError, StorageError
from ..files import atomic
from ..files.documents import Document
from ..files.tree import Tree
from . import bounds, installed, schema1

#: Raised when the meaning or set of fields changes; older readers refuse newer records.
SCHEMA = 3
#: Larger files are neither read nor written.
MAX_BYTES = 8 << 20
_MAX_LINE = 110

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$")]
Interval = tuple[float, float]


class UsedNetwork(Configuration):
    """A registered network that a component used, besides those of the protocol."""

    kind: Literal["embedder", "perceptual"]
    distribution: str = Field(description="package that registers it")
    version: int = Field(description="raised when a change of the network alters results")


class Choice(Configuration):
    """A configured component."""

    name: Name
    distribution: str = Field(description="package that registers it")
    version: int = Field(description="raised when a change of the component alters results")
    fields: dict[str, JsonValue]
    files: dict[str, Hash] = Field(
        default_factory=dict, description="SHA-256 of files that it and its networks read, by name; not the data set's"
    )
    networks: dict[str, UsedNetwork] = Field(
        default_factory=dict, description="registered embedders and perceptual networks that it used, by name"
    )


class CellIdentity(Configuration):
    """Components, seed and budget of a cell."""

    dataset: Choice
    defense: Choice
    attack: Choice
    evaluators: tuple[Choice, ...]
    seed: int = Field(ge=0)
    budget: Budget


class RecordedScore(Configuration):
    """A score (see `evidence.Score`) with its evaluator and its definition."""

    evaluator: Name
    definition: Definition
    value: float | None
    n: int = Field(0, ge=0, le=bounds.MAX_COUNT)
    interval: Interval | None = None
    intervals: dict[str, Interval | None] = Field(default_factory=dict)
    spreads: dict[str, float | None] = Field(default_factory=dict)
    chance: float | None = None
    per_class: tuple[float | None, ...] | None = None
    reason: str | None = None
    not_applicable: bool = Field(False, description="true if the score has no meaning here by construction")
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_value_or_reason(self) -> RecordedScore:
        if (self.value is None) == (self.reason is None):
            raise ValueError("expected either a value or a reason why there is none")
        return self

    @model_validator(mode="after")
    def _is_within_bounds(self) -> RecordedScore:
        numbers = self.model_dump(include={"n", "interval", "intervals", "spreads", "chance", "per_class"})
        fault = bounds.fault(self.definition.unit, self.value, **numbers)
        if fault:
            raise ValueError(fault)
        return self


class Cost(Configuration):
    """Resources that a stage used on the machine that computed it."""

    seconds: float = Field(ge=0)
    peak_memory_bytes: int | None = Field(None, ge=0)
    computed_here: bool | None = Field(None, description="false if the stage came from the store")
    images_at_once: int | None = Field(
        None, ge=1, description="images that the attack sent through networks in one chunk after memory ran out"
    )


class Environment(Configuration):
    """Versions and hardware."""

    privbench: str
    python: str
    torch: str
    platform: str
    cpu: str
    cores: int | None
    device: str
    threads: int
    commit: str | None = Field(None, description="commit of the checkout, if there was one")
    isolation: str = Field("none", description="of the attack: none, process or bubblewrap")


class ArtifactReference(Configuration):
    """A stored result of a stage."""

    key: Hash
    digest: Hash


class Flag(Configuration):
    """A finding that casts doubt on the scores."""

    name: str
    message: str


class NotRun(Configuration):
    """A reason why an evaluator did not run."""

    code: Literal["not_applicable", "unavailable"] = Field(
        description="`not_applicable`: the attack never gives what the evaluator reads; `unavailable`: the evaluator "
        "cannot score this protocol, or cannot do it on this machine"
    )
    reason: str


class Record(Document):
    """The result of one cell."""

    document_kind: ClassVar[str] = "a record"
    remedy: ClassVar[str] = "run its cell again or remove it"
    max_bytes: ClassVar[int] = MAX_BYTES
    #: A record needs about eight levels.
    max_depth: ClassVar[int] = 24

    schema_version: int = Field(SCHEMA, ge=SCHEMA, le=SCHEMA)
    key: Hash
    key_format: int = Field(1, ge=1, description="the way its keys were made; records before schema 3 have format 1")
    protocol: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}/v[0-9]{1,6}$")]
    cell: CellIdentity
    changed: dict[str, dict[str, JsonValue]] = Field(
        default_factory=dict, description="by kind of component, the fields that the user set"
    )
    command: tuple[str, ...] = Field(description="runs the cell again")
    created: str = Field(description="UTC, ISO 8601")
    scores: dict[Name, RecordedScore]
    not_run: dict[str, NotRun] = Field(default_factory=dict, description="by evaluator, why it did not run")
    access: Access | None = Field(None, description="access of the attack to the target; missing in older records")
    queries: dict[str, int] = Field(default_factory=dict, description="what the attack asked of the target")
    costs: dict[str, Cost] = Field(default_factory=dict, description="by stage")
    environment: Environment
    artifacts: dict[str, ArtifactReference] = Field(default_factory=dict, description="by stage")
    target: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="the network of its training that was kept, after which step, and its accuracy on the validation "
        "images; missing in older records",
    )
    judge: dict[str, JsonValue] = Field(default_factory=dict)
    curves: dict[str, dict[str, dict[str, tuple[tuple[int, float | None], ...]]]] = Field(
        default_factory=dict, description="by stage, loop and series: step and value"
    )
    flags: tuple[Flag, ...] = ()
    picture: str | None = Field(None, description="file beside the record: rows are draws, columns labels")

    @field_validator("created")
    @classmethod
    def _is_utc(cls, value: str) -> str:
        import datetime

        try:
            offset = datetime.datetime.fromisoformat(value).utcoffset()
        except ValueError:
            offset = None
        if offset != datetime.timedelta(0):
            raise ValueError("a UTC time such as 2026-01-31T12:00:00+00:00")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Record:
        if self.picture not in (None, f"{self.key}.png"):
            raise ValueError("expected picture to be named after the key")
        unknown = {score.evaluator for score in self.scores.values()} - {choice.name for choice in self.cell.evaluators}
        if unknown:
            raise ValueError(f"got scores of {', '.join(sorted(unknown))}, which the cell does not list")
        return self

    @classmethod
    def upgrade(cls, value: dict[str, Any], schema: int) -> dict[str, Any]:
        """Convert a parsed record of an older schema to the newest one."""
        return (schema1.convert(value) if schema == 1 else value) | {"schema_version": SCHEMA}

    @classmethod
    def parse(cls, data: bytes, source: str) -> Self:
        """Validate the record in `data`, also against the number of labels of a built-in data set."""
        record = super().parse(data, source)
        most = label_count(record.cell.dataset)
        for name, score in record.scores.items():
            if most is not None and len(score.per_class or ()) > most:
                raise CorruptArtifactError(
                    f"expected {name} in {source} to have at most {most} values by label, got more; {cls.remedy}"
                )
        return record

    def evaluator(self, score: str) -> Choice:
        """Return the configured evaluator of a score."""
        return next(choice for choice in self.cell.evaluators if choice.name == self.scores[score].evaluator)

    def text(self) -> str:
        """Return the content of the file."""
        return _layout(self.model_dump(mode="json")) + "\n"


def label_count(dataset: Choice) -> int | None:
    """Most values by label that a score may have: one for each label of the data set; `None` if it is unknown."""
    attributes = dataset.fields.get("attributes")
    usual = installed.classes(dataset.name) if dataset.distribution == BUILT_IN else None
    return len(attributes) if usual and isinstance(attributes, list) else usual


def location(record: Record, results_root: Path) -> Path:
    """Path of a record in the results: `records/PROTOCOL/DEFENSE/ATTACK/KEY.json`."""
    parts = (record.protocol.replace("/", "-"), record.cell.defense.name, record.cell.attack.name)
    return results_root.joinpath("records", *parts, f"{record.key}.json")


def save(record: Record, results_root: Path, picture_png: bytes | None = None) -> Path:
    """Write a picture, then its record, each atomically and through no link inside the results folder.

    Args:
        record: to write.
        results_root: the results folder.
        picture_png: the picture that `record.picture` names.

    Returns:
        The path of the record.

    Raises:
        StorageError: the folder cannot be written.
    """
    assert (picture_png is None) == (record.picture is None)
    path = location(record, results_root)
    content = record.text().encode()
    if len(content) > MAX_BYTES:
        raise StorageError(f"expected a record of at most {MAX_BYTES} bytes, got {len(content)}; record fewer curves")
    tree = Tree(results_root)
    with atomic.storage_errors(path, otherwise="choose another results folder"):
        if picture_png is not None:
            tree.write_file(path.with_suffix(".png"), picture_png)
        tree.write_file(path, content)
    return path


def read(path: Path) -> Record:
    """Read one record.

    Raises:
        IncompatibleRecordError: the file cannot be read, is not a record, or has a newer schema.
    """
    try:
        return Record.read(path, follow_links=True)
    except (CorruptArtifactError, MissingDataError) as cause:
        raise IncompatibleRecordError(str(cause)) from cause


def _layout(value: Any, indent: int = 0) -> str:
    """Format JSON with sorted keys and an indent of 1; a short list without containers stays on one line."""
    if isinstance(value, dict) and value:
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {_layout(value[key], indent + 1)}" for key in sorted(value)]
        return _block("{", lines, "}", indent)
    if isinstance(value, list) and value:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if len(line) <= _MAX_LINE and not any(isinstance(item, dict | list) and item for item in value):
            return line
        return _block("[", [_layout(item, indent + 1) for item in value], "]", indent)
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _block(opening: str, lines: list[str], closing: str, indent: int) -> str:
    pad = "\n" + " " * (indent + 1)
    return f"{opening}{pad}{(',' + pad).join(lines)}\n{' ' * indent}{closing}"
