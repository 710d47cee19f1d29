"""Arbitrary submissions are accepted or rejected with a message, without a traceback or execution of their content."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privbench.benchmark.errors import PrivbenchError
from privbench.benchmark.records.record import Record
from privbench.benchmark.records.submission import INDEX, read_submission
from privbench.benchmark.submissions.check_components import check_components
from privbench.benchmark.submissions.check_evidence import Reference, check_picture, read_evidence

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["/etc/passwd", "../x.json", "verification.json", "x.pkl", "\ud800", "0" * 64, "evidence/A"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutations(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one member, at any depth, replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 7)):
        name = draw(st.sampled_from(sorted(value)))
        changed = dict(value)
        changed[name] = draw(mutations(value[name]))
        return changed
    if isinstance(value, list) and value and draw(st.integers(0, 7)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(mutations(value[place])), *value[place + 1 :]]
    if isinstance(value, dict) and value and draw(st.booleans()):
        gone = draw(st.sampled_from(sorted(value)))
        return {name: each for name, each in value.items() if name != gone}
    return draw(JSON)


def written(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def reference(honest: Path) -> Reference:
    """The reference of the evidence, with data that is read once."""
    (record,) = read_submission(honest).records
    dataset = check_components(record).dataset.component
    parts = {part: dataset.load(part, honest) for part in ("private_test", "public")}
    return Reference(record, dataset.protocol, 2, parts.__getitem__)


@pytest.fixture(scope="module")
def evidence(honest: Path, reference: Reference) -> dict[str, Any]:
    submission = read_submission(honest)
    return read_evidence(submission, submission.index.records[0], reference)


@pytest.fixture
def start(forged) -> dict[str, Any]:
    return forged.index


@QUICK
@given(data=st.data())
def test_any_index(forged, start, data: st.DataObject) -> None:
    (forged.folder / INDEX).write_bytes(written(data.draw(mutations(start))))
    with contextlib.suppress(PrivbenchError):
        read_submission(forged.folder)


@QUICK
@given(content=st.binary(max_size=200))
def test_any_bytes_for_an_index(forged, content: bytes) -> None:
    (forged.folder / INDEX).write_bytes(content)
    with pytest.raises(PrivbenchError):
        read_submission(forged.folder)


@QUICK
@given(data=st.data())
def test_any_record(honest: Path, data: st.DataObject) -> None:
    """A valid record is checked against the components without a traceback."""
    (path,) = (honest / "records").rglob("*.json")
    value = json.loads(path.read_text("utf-8"))
    value["cell"] = data.draw(mutations(value["cell"])) if data.draw(st.booleans()) else value["cell"]
    changed = data.draw(mutations(value))
    try:
        record = Record.model_validate_json(written(changed))
    except ValueError:
        return
    with contextlib.suppress(PrivbenchError):
        check_components(record)


@QUICK
@given(data=st.data())
def test_any_evidence(forged, honest: Path, reference: Reference, data: st.DataObject) -> None:
    """Changed headers and bytes, with correct hashes."""
    kind = data.draw(st.sampled_from(["ClassReconstructions", "Negatives", "Predictions"]))
    (original,) = honest.glob(f"evidence/{kind}-*")
    content = original.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    if data.draw(st.booleans()):
        header = written(data.draw(mutations(json.loads(content[8 : 8 + length]))))
        content = struct.pack("<Q", len(header)) + header + content[8 + length :]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content = content[:place] + data.draw(st.binary(max_size=9)) + content[place + data.draw(st.integers(0, 9)) :]
    forged.replace(f"evidence/{original.name}", content)
    submission = read_submission(forged.folder)
    with contextlib.suppress(PrivbenchError):
        read_evidence(submission, submission.index.records[0], reference)


@QUICK
@given(data=st.data())
def test_any_picture(forged, honest: Path, evidence: dict[str, Any], data: st.DataObject) -> None:
    (original,) = honest.rglob("*.png")
    content = original.read_bytes()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        content = content[:place] + data.draw(st.binary(max_size=9)) + content[place + data.draw(st.integers(0, 9)) :]
    forged.replace(original.relative_to(honest).as_posix(), content)
    submission = read_submission(forged.folder)
    (record,) = submission.records
    with contextlib.suppress(PrivbenchError):
        check_picture(submission, submission.index.records[0], record, evidence)
