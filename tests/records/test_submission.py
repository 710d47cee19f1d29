"""Files of a submission are hashed and parsed as the same bytes."""

import hashlib
import json
from pathlib import Path

import pytest
from helpers.samples import make_record
from privbench.benchmark.errors import CorruptArtifactError
from privbench.benchmark.records import submission, submitted
from privbench.benchmark.records.record import location
from privbench.benchmark.records.submission import INDEX, read_submission


def written(folder: Path, data: bytes) -> Path:
    """A submission with one record, of these bytes."""
    path = location(make_record(), Path()).as_posix()
    facts = {path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    index = {"format": "privbench submission", "schema_version": 1, "privbench": "0", "created": "now", "contact": "c"}
    index |= {"paper": "p", "seeds": [0], "records": [{"record": path, "evidence": {}}], "files": facts}
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_bytes(data)
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_a_file_that_changes_after_it_was_hashed_is_not_parsed(tmp_path: Path, monkeypatch) -> None:
    """A reader that opened the record again would see another seed."""
    honest = make_record().text()
    folder, read, seen = written(tmp_path, honest.encode()), submission.read_bounded, []

    def swapping(path: Path, limit: int, **options: bool) -> bytes:
        data = read(path, limit, **options)
        if path.parent.name == "kedmi":
            seen.append(path)
            path.write_text(honest.replace('"seed": 0', '"seed": 7'))
        return data

    monkeypatch.setattr(submission, "read_bounded", swapping)
    assert read_submission(folder).records == (make_record(),)
    assert len(seen) == 1
    (problem,) = submitted.load(folder, None)
    assert "to have the SHA-256" in str(problem)


def test_a_record_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    text = make_record().text().replace('"seed": 0', '"seed": 7,\n  "seed": 0')
    with pytest.raises(CorruptArtifactError, match="a name appears twice in it"):
        read_submission(written(tmp_path, text.encode()))
