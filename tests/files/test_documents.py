"""The reader of JSON documents: schemas, limits, and one sentence for each fault."""

from typing import Any, ClassVar, Literal

import pytest
from privbench.benchmark.errors import CorruptArtifactError, IncompatibleRecordError, MissingDataError
from privbench.benchmark.files.documents import MAX_DEPTH, Document, decode, depth
from pydantic import Field, field_validator, model_validator


class Box(Document):
    document_kind: ClassVar[str] = "a box"
    remedy: ClassVar[str] = "pack it again"
    max_bytes: ClassVar[int] = 1000

    format: Literal["box"] = "box"
    schema_version: int = Field(2, ge=2, le=2)
    size: int = Field(ge=1)
    label: str = Field("", max_length=5)
    names: tuple[str, ...] = ()

    @field_validator("label")
    @classmethod
    def _is_lower_case(cls, label: str) -> str:
        if label != label.lower():
            raise ValueError("lower-case")
        return label

    @model_validator(mode="after")
    def _fits(self) -> "Box":
        if len(self.names) > self.size:
            raise ValueError("got more names than fit")
        return self

    @classmethod
    def upgrade(cls, value: dict[str, Any], schema: int) -> dict[str, Any]:
        return {"format": "box", "schema_version": 2, "size": value["length"]} if schema == 1 else value


def test_round_trip(tmp_path):
    box = Box(size=3, names=("a", "\u00e9"))
    path = tmp_path / "box.json"
    path.write_text(box.text(), encoding="utf-8")
    assert Box.read(path) == box


def test_an_older_schema_is_upgraded():
    assert Box.parse(b'{"format": "box", "schema_version": 1, "length": 4}', "x").size == 4


def test_a_newer_schema_is_refused_before_validation():
    with pytest.raises(IncompatibleRecordError, match=r"^x has schema 3 .* reads up to 2; upgrade privbench$"):
        Box.parse(b'{"format": "box", "schema_version": 3, "unknown": 1}', "x")


HEAD = '"format": "box", "schema_version": 2'
FAULTS = {
    '{"format": "crate", "schema_version": 2}': "expected x to be a box, got another file",
    '{"format": "box", "schema_version": true}': "expected x to be a box, got another file",
    f"{{{HEAD}}}": "expected x to have size, found none",
    f'{{{HEAD}, "size": 1, "colour": 2}}': "expected x to have known fields only, got colour",
    f'{{{HEAD}, "size": 0}}': "expected size in x to be greater than or equal to 1, got 0",
    f'{{{HEAD}, "size": 1, "label": "abcdef"}}': "expected label in x to have at most 5 characters, got 'abcdef'",
    f'{{{HEAD}, "size": 1, "label": "A"}}': "expected label in x to be lower-case, got 'A'",
    f'{{{HEAD}, "size": 1, "names": ["a", "b"]}}': "expected x to be consistent: got more names than fit",
    '{"a": 1, "a": 2}': "expected x to be a JSON object: a name appears twice in it",
    '{"a": NaN}': "expected x to be a JSON object: NaN is not JSON",
    '{"a": 1e999}': "expected x to be a JSON object: Out of range",
    "null": "expected x to be a JSON object: it is of type NoneType",
    "  <html>": "expected x to be a JSON object: it is a web page",
    " " * 1001: "expected x to be a JSON object: it is larger than 1,000 bytes",
    "[" * 70 + "]" * 70: f"expected x to be a JSON object: it is nested more than {MAX_DEPTH} levels deep",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_one_sentence_with_the_remedy(text):
    with pytest.raises(CorruptArtifactError) as caught:
        Box.parse(text.encode(), "x")
    message = str(caught.value)
    assert message.startswith(FAULTS[text])
    assert message.endswith("; pack it again")


def test_links_are_followed_on_request_only(tmp_path):
    (tmp_path / "box.json").write_text(Box(size=1).text())
    link = tmp_path / "link.json"
    link.symlink_to("box.json")
    with pytest.raises(CorruptArtifactError, match="symbolic link"):
        Box.read(link)
    assert Box.read(link, follow_links=True).size == 1
    with pytest.raises(MissingDataError, match="found none"):
        Box.read(tmp_path / "missing.json", follow_links=True)


@pytest.mark.parametrize(("value", "levels"), [(1, 0), ([], 0), ([[]], 1), ({"a": [1, {"b": ({},)}]}, 4)])
def test_depth(value, levels):
    assert depth(value) == levels


def test_depth_stops_at_the_limit():
    assert depth(decode(b"[" * 60 + b"]" * 60), limit=5) == 6
    with pytest.raises(ValueError, match="more than 5 levels"):
        decode(b"[" * 60 + b"]" * 60, max_depth=5)
