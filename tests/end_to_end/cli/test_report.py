"""`privbench report` as a user sees it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import command_line, samples
from helpers.command_line import refusal
from privbench.benchmark.records.record import save


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results"
    samples.save_matrix(folder, seeds=2, attacks=("kedmi",))
    return folder


def call(*words: object) -> command_line.Result:
    return command_line.run("report", *words)


def test_console_is_the_default(results, monkeypatch):
    done = call(results)
    assert (done.code, done.err) == (0, "")
    assert "bido_hsic" in done.out
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(results))
    assert call().out == done.out
    monkeypatch.delenv("PRIVBENCH_RESULTS")
    monkeypatch.chdir(results.parent)
    assert call().out == done.out


def test_html_goes_beside_the_records_and_its_index_is_printed(results):
    done = call(results, "--format", "html")
    path = results / "report" / "index.html"
    assert (done.code, done.out, done.err) == (0, f"{path}\n", "")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(list(path.parent.glob("cells/*.html"))) == 8
    assert sorted(file.name for file in results.iterdir()) == ["records", "report"]
    assert call(results, "--format", "html").out == done.out


def test_one_page_can_be_had(results):
    done = call(results, "--format", "html", "--single")
    assert done.out == f"{results / 'report.html'}\n"
    assert sorted(file.name for file in results.iterdir()) == ["records", "report.html"]
    assert call(results, "-f", "html", "--single", "-o", results / "x.htm").out == f"{results / 'x.htm'}\n"


def test_a_record_alone_has_a_report(results):
    path = next(results.rglob("*.json"))
    assert "kedmi" in call(path).out
    done = call(path, "--format", "html", "--output", results / "one")
    assert done.out == f"{results / 'one' / 'index.html'}\n"


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
    assert sentence in refusal("report", results, *words)
    assert [file.name for file in results.parent.iterdir()] == ["results"]


def test_a_folder_of_something_else_is_refused_before_anything_is_read(results, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    words = ["--format", "html", "--output", tmp_path / "mine"]
    assert "to be an earlier report, got another folder" in refusal("report", tmp_path / "nowhere", *words)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_private_images_that_are_gone_are_said_with_a_warning(results, tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVBENCH_DATA", str(tmp_path / "data"))
    done = call(results, "-f", "html", "--with-private-images", "--store", tmp_path / "store")
    assert done.code == 0
    assert done.err.startswith("privbench: the report contains private images of 0 of 8 cells; do not publish it")
    cell = next((results / "report" / "cells").glob("*.html")).read_text(encoding="utf-8")
    assert "No private images: " in cell
    assert "names no evidence" in cell


@pytest.mark.parametrize("form", ["md", "csv", "latex", "console"])
def test_output_is_what_stdout_would_be(results, tmp_path, form):
    path = tmp_path / "deep" / "report.txt"
    assert call(results, "--format", form, "--output", path).out == f"{path}\n"
    if form != "console":
        assert path.read_text(encoding="utf-8") == call(results, "--format", form).out
    assert "bido_hsic" in path.read_text(encoding="utf-8").replace("\\", "")


def test_csv_is_for_machines(results):
    rows = list(csv.DictReader(io.StringIO(call(results, "--format", "csv").out)))
    assert len(rows) == 8 * 5


def test_empty_and_missing_results_are_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "privbench run" in refusal("report", path)


def test_bad_files_are_named_after_the_rest_is_shown(results):
    (results / "records" / "bad\x1b[31m.json").write_text("{")
    new = results / "records" / "new.json"
    new.write_text(json.dumps({"schema_version": 99}))
    done = call(results)
    assert done.code == 1
    assert "bido_hsic" in done.out
    assert len(done.err.splitlines()) == 2
    assert "\x1b" not in done.err
    assert "upgrade privbench" in done.err
    assert "upgrade privbench" in refusal("report", new)


def test_unwritable_output_leaves_nothing(results, tmp_path):
    (tmp_path / "folder.html").mkdir()
    record = next(results.rglob("*.json"))
    for path, more in ((tmp_path / "folder.html", ["--single"]), (record / "x", []), (record, [])):
        assert "--output" in refusal("report", results, "--format", "html", "--output", path, *more)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.html", "results"]


def test_unknown_format_is_a_usage_error(results):
    assert call(results, "--format", "pdf").code == 2


@pytest.mark.parametrize("form", ["console", "html", "csv"])
def test_torch_is_not_imported(results, form):
    modules = command_line.imported_modules("report", results, "--format", form)
    assert not modules & {"torch", "pandas", "sklearn"}


def test_a_terminal_without_unicode_gets_similar_characters(results):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "privbench", "report", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Attack Acc v %" in done.stdout


def test_many_budgets_and_versions_have_their_own_tables(tmp_path):
    for protocol, budget in (("digits/v1", "quick"), ("digits/v2", "quick"), ("digits/v1", "smoke")):
        save(samples.make_record(protocol=protocol, budget=budget), tmp_path)
    titles = [line for line in call(tmp_path, "--format", "md").out.splitlines() if line.startswith("### ")]
    assert titles == [f"### digits/{name}" for name in ("v1, budget smoke", "v1, budget quick", "v2, budget quick")]
