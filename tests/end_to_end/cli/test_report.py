"""`privbench report` as a user sees it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import samples
from privbench.benchmark.cli.report import report
from privbench.benchmark.errors import (
    IncompatibleRecordError,
    InvalidConfigurationError,
    MissingDataError,
    StorageError,
)
from privbench.benchmark.records.record import save
from typer.testing import CliRunner

app = typer.Typer()
app.command()(report)


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results"
    samples.save_matrix(folder, seeds=2, attacks=("kedmi",))
    return folder


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_console_is_the_default(results, monkeypatch):
    done = call(results)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "bido_hsic" in done.stdout
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(results))
    assert call().stdout == done.stdout
    monkeypatch.delenv("PRIVBENCH_RESULTS")
    monkeypatch.chdir(results.parent)
    assert call().stdout == done.stdout


def test_html_goes_beside_the_records_and_its_index_is_printed(results):
    done = call(results, "--format", "html")
    path = results / "report" / "index.html"
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{path}\n", "")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(list(path.parent.glob("cells/*.html"))) == 8
    assert sorted(file.name for file in results.iterdir()) == ["records", "report"]
    assert call(results, "--format", "html").stdout == done.stdout


def test_one_page_can_be_had(results):
    done = call(results, "--format", "html", "--single")
    assert done.stdout == f"{results / 'report.html'}\n"
    assert sorted(file.name for file in results.iterdir()) == ["records", "report.html"]
    assert call(results, "-f", "html", "--single", "-o", results / "x.htm").stdout == f"{results / 'x.htm'}\n"


def test_a_record_alone_has_a_report(results):
    path = next(results.rglob("*.json"))
    assert "kedmi" in call(path).stdout
    done = call(path, "--format", "html", "--output", results / "one")
    assert done.stdout == f"{results / 'one' / 'index.html'}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-f", "html", "-o", "x.html"], "add --single for one file"),
        (["-f", "html", "--single", "-o", "x"], "expected --output to end in .html with --single, got x"),
        (["--single"], "expected --single with --format html, got --format console"),
        (["-f", "csv", "--with-private-images"], "expected --with-private-images with --format html"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(results, monkeypatch, words, sentence):
    monkeypatch.chdir(results.parent)
    done = call(results, *words)
    assert isinstance(done.exception, InvalidConfigurationError)
    assert sentence in str(done.exception)
    assert [file.name for file in results.parent.iterdir()] == ["results"]


def test_a_folder_of_something_else_is_refused_before_anything_is_read(results, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    done = call(tmp_path / "nowhere", "--format", "html", "--output", tmp_path / "mine")
    assert isinstance(done.exception, StorageError)
    assert "no report made" in str(done.exception)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_private_images_that_are_gone_are_said_with_a_warning(results, tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVBENCH_DATA", str(tmp_path / "data"))
    done = call(results, "-f", "html", "--with-private-images", "--store", tmp_path / "store")
    assert done.exit_code == 0
    assert done.stderr.startswith("privbench: the report holds private images, of 0 of 8 cells; do not publish it")
    cell = next((results / "report" / "cells").glob("*.html")).read_text(encoding="utf-8")
    assert "No private images: " in cell
    assert "names no evidence" in cell


@pytest.mark.parametrize("form", ["md", "csv", "latex", "console"])
def test_output_is_what_stdout_would_be(results, tmp_path, form):
    path = tmp_path / "deep" / "report.txt"
    assert call(results, "--format", form, "--output", path).stdout == f"{path}\n"
    if form != "console":
        assert path.read_text(encoding="utf-8") == call(results, "--format", form).stdout
    assert "bido_hsic" in path.read_text(encoding="utf-8").replace("\\", "")


def test_csv_is_for_machines(results):
    rows = list(csv.DictReader(io.StringIO(call(results, "--format", "csv").stdout)))
    assert len(rows) == 8 * 5


def test_empty_and_missing_results_are_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        done = call(path)
        assert done.exit_code == 1
        assert isinstance(done.exception, MissingDataError)
        assert "privbench run" in str(done.exception)
        assert done.stdout == ""


def test_bad_files_are_named_after_the_rest_is_shown(results):
    (results / "records" / "bad\x1b[31m.json").write_text("{")
    new = results / "records" / "new.json"
    new.write_text(json.dumps({"schema_version": 99}))
    done = call(results)
    assert done.exit_code == 1
    assert "bido_hsic" in done.stdout
    assert len(done.stderr.splitlines()) == 2
    assert "\x1b" not in done.stderr
    assert "upgrade privbench" in done.stderr
    assert isinstance(call(new).exception, IncompatibleRecordError)


def test_unwritable_output_leaves_nothing(results, tmp_path):
    (tmp_path / "folder.html").mkdir()
    record = next(results.rglob("*.json"))
    for path, more in ((tmp_path / "folder.html", ["--single"]), (record / "x", []), (record, [])):
        done = call(results, "--format", "html", "--output", path, *more)
        assert isinstance(done.exception, StorageError)
        assert "--output" in str(done.exception)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.html", "results"]


def test_unknown_format_is_a_usage_error(results):
    assert call(results, "--format", "pdf").exit_code == 2


@pytest.mark.parametrize("form", ["console", "html", "csv"])
def test_torch_is_not_imported(results, form):
    program = (
        "import sys, typer; from privbench.benchmark.cli.report import report; app = typer.Typer(); "
        "app.command()(report); app(sys.argv[1:], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'sklearn')))"
    )
    command = [sys.executable, "-c", program, str(results), "--format", form]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert form != "console" or "Attack Acc v %" in done.stdout


def test_many_budgets_and_versions_have_their_own_tables(tmp_path):
    for protocol, budget in (("digits/v1", "quick"), ("digits/v2", "quick"), ("digits/v1", "smoke")):
        save(samples.make_record(protocol=protocol, budget=budget), tmp_path)
    titles = [line for line in call(tmp_path, "--format", "md").stdout.splitlines() if line.startswith("### ")]
    assert titles == [f"### digits/{name}" for name in ("v1, budget smoke", "v1, budget quick", "v2, budget quick")]
