"""Verification levels of submitted records, in all reports."""

import csv
import html
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from privbench.benchmark.analysis.record_set import Records, load_records
from privbench.benchmark.records.submission import INDEX
from privbench.benchmark.records.verification import EXPLANATIONS, LEVELS, lowest, write_verification
from privbench.benchmark.report.html.pages import render_folder, render_single_page
from privbench.benchmark.report.tables import latex as latex_tables
from privbench.benchmark.report.tables import tables
from privbench.benchmark.submissions.verify import SubmissionResult, make_verification

Check = Callable[[Path], SubmissionResult]


@pytest.fixture(scope="module")
def verification(honest: Path, check: Check, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with only the submission and its verification, which tests copy."""
    folder = tmp_path_factory.mktemp("verification")
    shutil.copytree(honest, folder / "submissions" / "honest")
    found = check(folder / "submissions" / "honest")
    write_verification(make_verification(found, "A <b>verifier</b>"), folder, "honest")
    return folder


@pytest.fixture
def verified(verification: Path, tmp_path: Path) -> Path:
    """The results folder with a verification."""
    return Path(shutil.copytree(verification, tmp_path / "results"))


def level(records: Records) -> str:
    assert records.problems == ()
    (record,) = records
    return records.level([record])


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_a_submission_is_part_of_the_results(verified: Path) -> None:
    assert level(load_records(verified)) == "recomputed"
    assert level(load_records(verified / "submissions")) == "recomputed"
    assert level(load_records(verified / "submissions" / "honest")) == "recomputed"
    (verified / "verifications" / "honest.json").unlink()
    records = load_records(verified)
    assert level(records) == "self-reported"
    (source,) = records.sources.values()
    assert (source.submission, source.paper, source.contact) == ("honest", "A paper", "author@example.org")


def test_the_same_record_in_the_results_has_the_level(verified: Path, author: Path) -> None:
    shutil.copytree(author / "results" / "records", verified / "records")
    records = load_records(verified)
    assert level(records) == "recomputed"
    assert records.paths[0].is_relative_to(verified / "records")
    assert level(load_records(author / "results")) == "self-reported"


def test_of_several_submissions_of_a_record_the_highest_level_counts(verified: Path) -> None:
    for name in ("another", "one-more"):
        shutil.copytree(verified / "submissions" / "honest", verified / "submissions" / name)
    assert level(load_records(verified)) == "recomputed"


def test_every_report_format_shows_the_level(verified: Path) -> None:
    records = load_records(verified)
    assert records.long()["level"].unique().tolist() == ["recomputed"]
    assert records.long()["submission"].unique().tolist() == ["honest"]
    assert records.wide()["level"].tolist() == ["recomputed"]
    assert records.leaderboard()["level"].unique().tolist() == ["recomputed"]
    assert {row["level"] for row in csv.DictReader(io.StringIO(tables.csv(records)))} == {"recomputed"}
    markdown = tables.markdown(records)
    (row,) = [line for line in markdown.splitlines() if line.startswith("| none") and "kedmi" in line]
    assert "| recomputed |" in row
    assert "Level: self-reported by the author" in markdown
    latex = latex_tables.latex(records)
    assert " & recomputed & " in latex
    assert "Level: self-reported by the author" in latex


def test_the_page_shows_and_explains_the_level(verified: Path) -> None:
    pages = {path: content.decode("utf-8", "replace") for path, content in render_folder(load_records(verified))}
    assert "<td>recomputed</td>" in pages["index.html"]
    assert '<span class="sub">recomputed</span>' in pages["index.html"]
    for text in (name for level in LEVELS for name in (f'id="level-{level}"', EXPLANATIONS[level])):
        assert text in html.unescape(pages["definitions.html"])
    (cell,) = [content for path, content in pages.items() if path.startswith("cells/") and path.endswith(".html")]
    assert 'definitions.html#level-recomputed">recomputed</a>' in cell
    assert "A &lt;b&gt;verifier&lt;/b&gt;" in cell
    assert "A paper" in cell
    single = render_single_page(load_records(verified))
    assert 'href="#level-recomputed"' in single


def test_unverified_records_are_self_reported(author: Path) -> None:
    records = load_records(author / "results")
    assert "<td>self-reported</td>" in dict(render_folder(records))["index.html"].decode()
    assert "self-reported" in tables.markdown(records)
    assert records.wide()["level"].tolist() == ["self-reported"]


def test_a_row_has_the_lowest_level() -> None:
    assert lowest(["re-run", "recomputed"]) == "recomputed"
    assert lowest(["re-run", "self-reported"]) == "self-reported"
    assert lowest([]) == "self-reported"


def test_a_verification_of_another_version_is_ignored(verified: Path) -> None:
    change(verified / "submissions" / "honest" / INDEX, paper="Another paper")
    records = load_records(verified)
    (record,) = records
    assert records.level([record]) == "self-reported"
    (problem,) = records.problems
    assert "got a verification of another state, which is ignored; verify it again" in problem


@pytest.mark.parametrize("content", ["{}", "[" * 9999, '{"format": "privbench verification", "schema_version": 1}'])
def test_a_damaged_verification_is_ignored(verified: Path, content: str) -> None:
    (verified / "verifications" / "honest.json").write_text(content)
    records = load_records(verified)
    assert records.level(records) == "self-reported"
    assert len(records.problems) == 1


def test_a_verification_inside_a_submission_is_ignored(verified: Path) -> None:
    """A submitter controls only the folder of the submission."""
    for place in ("verification.json", "verifications/honest.json"):
        path = verified / "submissions" / "honest" / place
        path.parent.mkdir(exist_ok=True)
        shutil.copy(verified / "verifications" / "honest.json", path)
    (verified / "verifications" / "honest.json").unlink()
    assert level(load_records(verified)) == "self-reported"


@pytest.mark.parametrize("suffix", [".json", ".png"])
def test_a_changed_record_or_picture_is_not_shown(verified: Path, suffix: str) -> None:
    (path,) = (verified / "submissions" / "honest" / "records").rglob(f"*{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[:-2] + data[-1:] + data[-2:-1])
    records = load_records(verified)
    assert len(records) == 0
    assert "to have the SHA-256" in records.problems[0]


def test_the_picture_of_a_verified_record_is_drawn_from_its_evidence(check: Check, forged, honest: Path) -> None:
    """The author may write anything into the line of labels, and change the file between two readings."""
    (original,) = honest.rglob("*.png")
    path, drawn = forged.path(".png"), original.read_bytes()
    with Image.open(original) as image:
        image.paste(0, (0, 0, image.width, 9))
        image.save(forged.folder / path)
    forged.replace(path, (forged.folder / path).read_bytes())
    results = forged.folder.parents[1]
    unverified = load_records(results)
    assert unverified.picture(unverified.items[0]) == (forged.folder / path).read_bytes() != drawn
    write_verification(make_verification(check(forged.folder), "A verifier"), results, "forged")
    records = load_records(results)
    assert level(records) == "recomputed"
    (forged.folder / path).write_bytes(drawn[::-1])
    assert records.picture(records.items[0]) == drawn
    assert unverified.picture(unverified.items[0]) is None
    (evidence,) = forged.folder.glob("evidence/ClassReconstructions-*")
    evidence.write_bytes(evidence.read_bytes()[::-1])
    assert records.picture(records.items[0]) is None, "evidence that was not verified"


def test_a_picture_that_was_added_later_is_not_shown(check: Check, forged, honest: Path) -> None:
    path = forged.path(".png")
    forged.drop(path)
    results = forged.folder.parents[1]
    write_verification(make_verification(check(forged.folder), "A verifier"), results, "forged")
    shutil.copy(honest / path, forged.folder / path)
    for expected in ("recomputed", "self-reported"):
        records = load_records(results)
        assert level(records) == expected
        assert records.picture(records.items[0]) is None
        (results / "verifications" / "forged.json").unlink(missing_ok=True)


def test_only_a_verified_submission_replaces_another_record_of_the_results(verified: Path, author: Path) -> None:
    shutil.copytree(author / "results" / "records", verified / "records")
    (path,) = (verified / "records").rglob("*.json")
    change(path, queries={"forward": 1})
    records = load_records(verified)
    assert level(records) == "recomputed"
    assert records.items[0].queries == {}
    assert "counts first" in records.left_out[0]
    (verified / "verifications" / "honest.json").unlink()
    records = load_records(verified)
    assert level(records) == "self-reported"
    assert records.items[0].queries == {"forward": 1}
    assert not records.sources


def test_a_link_instead_of_a_record(verified: Path, tmp_path: Path) -> None:
    (path,) = (verified / "submissions" / "honest" / "records").rglob("*.json")
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    records = load_records(verified)
    assert len(records) == 0
    assert "got a symbolic link" in records.problems[0]
