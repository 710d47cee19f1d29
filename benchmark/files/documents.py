"""JSON documents with a schema version, read from bytes that anybody may have written."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError
from pydantic_core import to_json

from ..core.config import Configuration
from ..errors import CorruptArtifactError, IncompatibleRecordError
from .stand_ins import HEAD, stand_in
from .untrusted import read_bounded, shown

#: Levels of nested lists and objects that a document may have.
MAX_DEPTH = 64
_CONTAINERS = (dict, list, tuple)


class Document(Configuration):
    """A JSON file with the number of the schema that it follows.

    A subclass declares `schema_version`, whose default is the newest schema that it reads, and may declare `format`,
    whose default every file of the kind contains.
    """

    #: What the file is, with an article, for messages.
    document_kind: ClassVar[str]
    #: What to do with a damaged file, as an order.
    remedy: ClassVar[str]
    max_bytes: ClassVar[int]
    max_depth: ClassVar[int] = MAX_DEPTH

    def text(self) -> str:
        """Return the content of the file: sorted keys, one value a line, so that changes are easy to review."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path, *, follow_links: bool = False) -> Self:
        """Read the document in a file; see `parse`.

        Raises:
            MissingDataError: the file does not exist or cannot be read.
            CorruptArtifactError: it is not a regular file, or not such a document.
            IncompatibleRecordError: a newer privbench wrote it.
        """
        return cls.parse(read_bounded(path, cls.max_bytes, follow_links=follow_links), str(path))

    @classmethod
    def parse(cls, data: bytes, source: str) -> Self:
        """Validate the document in `data`.

        Args:
            data: the content of the file.
            source: where it comes from, for messages.

        Raises:
            CorruptArtifactError: it is not such a document.
            IncompatibleRecordError: a newer privbench wrote it.
        """
        value = parse_json(data, source, cls.max_bytes, cls.max_depth, cls.remedy)
        fields = cls.model_fields
        if "schema_version" in fields:
            schema, newest = value.get("schema_version"), fields["schema_version"].default
            is_kind = "format" not in fields or value.get("format") == fields["format"].default
            if not is_kind or type(schema) is not int or schema < 1:
                raise CorruptArtifactError(
                    f"expected {source} to be {cls.document_kind}, got another file; {cls.remedy}"
                )
            if schema > newest:
                raise IncompatibleRecordError(
                    f"{source} has schema {shown(schema)} and this privbench reads up to {newest}; upgrade privbench"
                )
            value = cls.upgrade(value, schema)
        try:
            return cls.model_validate(value)
        except ValidationError as cause:
            raise CorruptArtifactError(f"{_describe(cause, source)}; {cls.remedy}") from None

    @classmethod
    def upgrade(cls, value: dict[str, Any], schema: int) -> dict[str, Any]:
        """Convert a parsed document of an older schema to the newest one."""
        return value


def _describe(cause: ValidationError, source: str) -> str:
    """Describe the first fault that validation found."""
    problem: Any = cause.errors(include_url=False)[0]
    field = shown(".".join(map(str, problem["loc"])))
    if problem["type"] == "missing":
        return f"expected {source} to have {field}, found none"
    if problem["type"] == "extra_forbidden":
        return f"expected {source} to have known fields only, got {field}"
    wanted = re.sub(r"^(Value error, |\w+ should )", "", problem["msg"])
    wanted = re.sub(r"valid dictionary( or instance of \w+)?$", "JSON object", wanted)
    if problem["type"] == "value_error":
        if isinstance(problem["input"], dict):  # values that contradict one another
            return f"expected {source} to be consistent{f' in {field}' if field else ''}: {shown(wanted)}"
        wanted = f"be {wanted}"
    return f"expected {field} in {source} to {shown(wanted)}, got {shown(repr(problem['input']))}"


def parse_json(
    data: bytes, source: str, limit: int, max_depth: int = MAX_DEPTH, remedy: str = "get the file again"
) -> dict[str, Any]:
    """Parse a JSON object, UTF-8, without NaN, infinity, lone surrogates, or a name that appears twice.

    Args:
        data: at most `limit` bytes.
        source: where they come from, for messages.
        limit: bytes.
        max_depth: levels of nesting.
        remedy: what to do with a damaged file, as an order.

    Raises:
        CorruptArtifactError: describes what the bytes are instead.
    """
    try:
        if len(data) > limit:
            raise ValueError(f"it is larger than {limit:,} bytes")
        if found := stand_in(data[:HEAD]):
            raise ValueError(f"it is {found}")
        value = decode(data, max_depth)
        if not isinstance(value, dict):
            raise ValueError(f"it is of type {type(value).__name__}")
        # The first line refuses text that UTF-8 cannot encode, the second the infinity that json.loads makes of 1e999.
        if b"Infinity" in to_json(value, inf_nan_mode="constants"):
            json.dumps(value, allow_nan=False)
    except ValueError as cause:
        raise CorruptArtifactError(f"expected {source} to be a JSON object: {shown(str(cause))}; {remedy}") from None
    return value


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Decode JSON in UTF-8, without NaN, infinity, or a name that appears twice.

    Raises:
        ValueError: says in one phrase what is wrong.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
        if depth(value, max_depth) > max_depth:
            raise RecursionError
    except RecursionError:
        raise ValueError(f"it is nested more than {max_depth} levels deep") from None
    return value


def depth(value: Any, limit: int = MAX_DEPTH) -> int:
    """Count the levels of nested lists and objects; any number above `limit` counts as `limit + 1`."""
    level, values = 0, [value] if isinstance(value, _CONTAINERS) else []
    while values and level <= limit:
        values = [
            child
            for each in values
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, _CONTAINERS)
        ]
        level += bool(values)
    return level


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name appears twice in it")
    return found
