"""Verifies the submissions that a pull request adds or changes, with the privbench of the target branch.

Files come from git's objects and never from a checkout or an archive, because `.gitattributes` of the pull request may
change what these write. Every changed file is either in a submission that is verified or refused.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUBMISSIONS, FINDINGS = b"results/submissions", b"results/verifications"
#: Mode of an ordinary file without permission to execute. Others are links, programs and submodules.
ORDINARY = b"100644"
MOST_BYTES = 2 << 30


class RefusedError(Exception):
    """Says in one sentence what is wrong with the pull request."""


@dataclass(frozen=True)
class File:
    """A file of the pull request. `blob` is empty if the pull request removes it."""

    path: bytes
    mode: bytes
    blob: bytes

    @property
    def submission(self) -> bytes:
        """Name of the submission, empty for a finding."""
        parts = self.path.split(b"/")
        if self.path.startswith(FINDINGS + b"/"):
            return b""
        if len(parts) < 4:
            raise RefusedError(f"expected only files of submissions, got {self.path!r}; remove it")
        return parts[2]


def git(repository: Path, *words: str | bytes) -> bytes:
    """Run git and return what it prints."""
    return subprocess.run(["git", *words], cwd=repository, check=True, stdout=subprocess.PIPE).stdout


def changed_files(repository: Path, base: str, head: str) -> list[File]:
    """Files that differ between the merge base and the head, with removed ones."""
    fork = git(repository, "merge-base", base, head).decode().strip()
    options = ("-r", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none")
    raw = git(repository, "diff-tree", *options, fork, head, "--", SUBMISSIONS, FINDINGS).split(b"\0")[:-1]
    files = []
    for facts, path in zip(raw[::2], raw[1::2], strict=True):
        _, mode, _, blob, status = facts.split(b" ")
        files.append(File(path, mode, b"" if status == b"D" else blob))
    return files


def write_submission(repository: Path, head: str, name: bytes, folder: Path) -> dict[bytes, bytes]:
    """Write all files of a submission below `folder` and return their blobs by path."""
    listed = git(repository, "ls-tree", "-r", "-z", "--long", head, "--", SUBMISSIONS + b"/" + name + b"/").split(b"\0")
    files = []
    size = 0
    for line in filter(None, listed):
        facts, path = line.split(b"\t", 1)
        mode, _, blob, length = facts.split()
        if mode != ORDINARY:
            raise RefusedError(f"{path!r} is a link, a program or a submodule; add it as an ordinary file")
        if any(part in (b"", b".", b"..") or part.lower().startswith(b".git") for part in path.split(b"/")):
            raise RefusedError(f"{path!r} is no name of a file or changes what git does; remove it")
        size += int(length)
        files.append((path, blob))
    if size > MOST_BYTES:
        raise RefusedError(
            f"the submission {name!r} has {size:,} bytes, more than {MOST_BYTES:,}; leave out what is not listed"
        )
    for path, blob in files:
        target = folder / path.decode(errors="surrogateescape")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(git(repository, "cat-file", "blob", blob))
    return dict(files)


def check(repository: Path, base: str, head: str, folder: Path, command: Sequence[str]) -> bool:
    """Verify each changed submission and say whether the pull request may be merged."""
    passed = True
    names: dict[bytes, list[File]] = {}
    for file in changed_files(repository, base, head):
        try:
            names.setdefault(file.submission, []).append(file)
        except RefusedError as refused:
            print(refused)
            passed = False
    findings = names.pop(b"", [])
    if findings and names:
        print("expected a submission without findings; a maintainer adds findings in a separate pull request")
        passed = False
    elif findings:
        print(f"{len(findings)} findings changed and no submission; a maintainer compares them with a run of his own")
    for name, files in names.items():
        print(f"\n== {name!r}", flush=True)
        try:
            written = write_submission(repository, head, name, folder)
            for file in files:
                if file.blob and written.get(file.path) != file.blob:
                    raise RefusedError(f"{file.path!r} was changed and is not part of the submission; remove it")
        except RefusedError as refused:
            print(refused)
            passed = False
            continue
        if not written:
            print("removed")
            continue
        target = folder / SUBMISSIONS.decode() / name.decode(errors="surrogateescape")
        passed &= subprocess.run([*command, str(target)], check=False).returncode == 0
    return passed


if __name__ == "__main__":
    repository, base, head, folder, *command = sys.argv[1:]
    sys.exit(0 if check(Path(repository), base, head, Path(folder), command) else 1)
