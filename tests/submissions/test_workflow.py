"""Workflow that verifies submissions in pull requests: its permissions, and its script on a real repository."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github" / "workflows" / "submissions.yml"
SCRIPT = ROOT / ".github" / "verify_submissions.py"
#: Replaces privbench: prints its arguments, and rejects submissions whose name ends in forged.
STUB = '#!/bin/sh\necho "asked: $*"\ncase "$4" in *forged) exit 1;; esac\n'


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text("utf-8"))


@pytest.fixture(scope="module")
def script(workflow) -> str:
    (found,) = [step["run"] for step in workflow["jobs"]["verify"]["steps"] if step.get("name") == "Verify"]
    return found


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


class Pull:
    """A repository with a base and a pull request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self.base.mkdir()
        self.data = folder / "data" / "results" / "submissions"
        git(self.base, "init", "--quiet", "--initial-branch=main")
        self.write("results/submissions/old/submission.json", "{}")
        self.write("code.py", "1")
        self.write(
            ".github/verify_submissions.py", FILE.parents[1].joinpath("verify_submissions.py").read_text("utf-8")
        )
        self.first = self.commit()

    def write(self, path: str, text: str) -> None:
        (self.base / path).parent.mkdir(parents=True, exist_ok=True)
        (self.base / path).write_text(text)

    def commit(self) -> str:
        git(self.base, "add", "--all")
        git(self.base, "commit", "--quiet", "--allow-empty", "-m", "x")
        return git(self.base, "rev-parse", "HEAD")

    def verify(self, script: str) -> tuple[int, str]:
        head = self.commit()
        git(self.base, "checkout", "--quiet", "--force", self.first)
        programs = self.folder / "bin"
        programs.mkdir()
        (programs / "privbench").write_text(STUB)
        (programs / "privbench").chmod(0o755)
        found = {"BASE": self.first, "HEAD": head, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env={**os.environ, **found},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout


@pytest.fixture
def pull(tmp_path: Path) -> Pull:
    return Pull(tmp_path)


def test_the_workflow_has_no_permissions_and_runs_no_code_of_a_pull_request(workflow) -> None:
    triggers = workflow[True]  # YAML reads the key `on` as true
    assert list(triggers) == ["pull_request"]
    assert workflow["permissions"] == {"contents": "read"}
    text = FILE.read_text("utf-8")
    assert "pull_request_target" not in text
    assert "secrets." not in text
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), "names in a pull request must not become part of a script"
        if "checkout" in step.get("uses", ""):
            assert step["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
            assert step["with"]["persist-credentials"] is False


def test_changed_submissions_are_verified(pull: Pull, script: str) -> None:
    pull.write("results/submissions/new/submission.json", "{}")
    pull.write("results/submissions/new/records/x.json", "{}")
    pull.write("code.py", "2")
    code, out = pull.verify(script)
    assert code == 0
    assert out.count("asked: ") == 1
    assert "asked: verify --store store data/results/submissions/new" in out
    assert (pull.data / "new" / "records" / "x.json").is_file()
    assert (pull.base / "code.py").read_text() == "1"
    assert not (pull.folder / "data" / "code.py").exists()


def test_one_rejection_fails_and_the_others_are_still_verified(pull: Pull, script: str) -> None:
    for name in ("a", "forged", "z"):
        pull.write(f"results/submissions/{name}/submission.json", "{}")
    code, out = pull.verify(script)
    assert code == 1
    assert out.count("asked: ") == 3


def test_a_removed_submission_is_no_error(pull: Pull, script: str) -> None:
    (pull.base / "results/submissions/old/submission.json").unlink()
    pull.write("results/submissions/other/submission.json", "{}")
    code, out = pull.verify(script)
    assert code == 0
    assert "removed" in out


def test_a_submission_cannot_bring_its_own_finding(pull: Pull, script: str) -> None:
    pull.write("results/submissions/new/submission.json", "{}")
    pull.write("results/verifications/new.json", "{}")
    code, out = pull.verify(script)
    assert code == 1
    assert "expected a submission without findings" in out


def test_unusual_names_are_not_executed(pull: Pull, script: str) -> None:
    names = ["--help", "$(touch owned)", "a b", "x;y", "`z`", "new\nline"]
    for name in names:
        pull.write(f"results/submissions/{name}/submission.json", "{}")
    pull.write("results/submissions/stray.json", "{}")
    code, out = pull.verify(script)
    assert code == 1
    assert out.count("asked: verify --store store data/results/submissions/") == len(names)
    assert "got b'results/submissions/stray.json'; remove it" in out
    assert not list(pull.folder.rglob("owned"))


def test_findings_alone_are_no_error(pull: Pull, script: str) -> None:
    pull.write("results/verifications/old.json", "{}")
    code, out = pull.verify(script)
    assert code == 0
    assert "1 findings changed" in out


@pytest.mark.parametrize("where", [".gitattributes", "results/.gitattributes", "results/submissions/.gitattributes"])
def test_attributes_of_a_pull_request_change_nothing(pull: Pull, script: str, where: str) -> None:
    pull.write(where, "*.json export-ignore\n*.txt export-subst ident text eol=crlf\n* -diff\n")
    text = "$Format:%H$ $Id$\n"
    pull.write("results/submissions/forged/submission.json", "{}")
    pull.write("results/submissions/forged/a.txt", text)
    code, _ = pull.verify(script)
    assert code == 1
    assert (pull.data / "forged" / "submission.json").read_bytes() == b"{}"
    assert (pull.data / "forged" / "a.txt").read_bytes() == text.encode()


def test_what_git_reads_is_refused_in_a_submission(pull: Pull, script: str) -> None:
    pull.write("results/submissions/new/.gitattributes", "* export-ignore\n")
    pull.write("results/submissions/new/submission.json", "{}")
    code, out = pull.verify(script)
    assert code == 1
    assert "remove it" in out
    assert "asked" not in out


@pytest.mark.parametrize("kind", ["link", "program", "submodule"])
def test_only_ordinary_files_are_taken(pull: Pull, script: str, kind: str) -> None:
    pull.write("results/submissions/new/submission.json", "{}")
    path = pull.base / "results/submissions/new/x"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "program":
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    else:
        # The pull request also asks git not to show changes of submodules.
        pull.write(".gitmodules", '[submodule "x"]\n\tpath = results/submissions/new/x\n\turl = ./x\n\tignore = all\n')
        git(pull.base, "update-index", "--add", "--cacheinfo", f"160000,{pull.first},results/submissions/new/x")
        git(pull.base, "add", "results", ".gitmodules", "--ignore-removal")
        git(pull.base, "commit", "--quiet", "-m", "x")
        path.mkdir()
    code, out = pull.verify(script)
    assert code == 1
    assert "is a link, a program or a submodule" in out
    assert not pull.data.exists()
