"""Kills of runs, `gc`, `check --repair`, `submit` and `verify` at random moments on one store; nothing may be lost.

    python tests/slow/reliability/kills.py --kills 1000 --folder /tmp/kills

A quiet run of a small matrix, its submission and the verification of it come first. Then several commands at a time
share a second store, three results folders and the submissions in them, and each is killed, with the processes that it
started, at a random moment of the time that such a command takes. `gc` is told of one results folder or of two, so that
runs have to compute again what it removes. A command that is not killed in time has to end as it should. In the end the
matrix is run, submitted and verified once more: records, evidence and findings must equal those of the quiet run, no
record or submission that was ever seen may be gone or unreadable, and `store check` must find nothing.

Processes are forks of one that has imported everything. The same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFENSES, ATTACKS, SEEDS = ("none", "bido_hsic"), ("gmi", "kedmi"), ("0", "1")
EVALUATORS = ("accuracy", "attack_acc", "verified_acc", "knn_distance")
FOLDERS = ("results-a", "results-b", "results-c")
#: Share of commands of each kind.
WEIGHTS = {"run": 10, "run --jobs 2": 1, "gc": 4, "check": 3, "submit": 3, "verify": 4}
#: Latest moment of a kill in seconds, and share of commands that are not killed. What is killed early continues later.
LONGEST, SPARED = 15.0, 0.1
#: Seconds after which a command that nobody killed is stuck.
STUCK = 1800.0
#: What a command may answer besides success, and when.
REFUSALS = {
    "submit": ("is not in the store", "expected --output to be a new folder", "to have the seeds", "found none"),
    "verify": ("found none", "to be a submission", "found no submission.json"),
    "gc": ("to be a folder of records",),
    "check": ("problem in", "problems in"),
}


@dataclass
class Running:
    """A command that runs."""

    kind: str
    pid: int
    began: float
    deadline: float
    log: Path


@dataclass
class Kills:
    """What has happened; saved after each command."""

    folder: Path
    choice: random.Random
    events: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    #: Time in seconds that commands take, by kind: longer after each that was killed, a moving mean of the others.
    seconds: dict[str, float] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    running: list[Running] = field(default_factory=list)
    started: int = 0

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def kills(self) -> int:
        return sum(count for event, count in self.events.items() if event.startswith("killed: "))

    def load(self) -> None:
        path = self.folder / "state.json"
        if path.exists():
            state = json.loads(path.read_text(encoding="utf-8"))
            self.events, self.faults, self.seen = Counter(state["events"]), state["faults"], set(state["seen"])
            self.seconds, self.started = state["seconds"], state["started"]

    def save(self) -> None:
        state = {
            "events": self.events, "faults": self.faults, "seen": sorted(self.seen), "seconds": self.seconds,
            "started": self.started,
        }  # fmt: skip
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
        temporary.replace(self.folder / "state.json")

    # Commands

    def command(self, kind: str) -> list[str] | None:
        """The words of a random command of a kind; `None` if there is nothing that it could work on."""
        results = self.folder / self.choice.choice(FOLDERS)
        store = ["--store", str(self.store)]
        if kind.startswith("run"):
            parts = {"defense": self._some(DEFENSES), "attack": self._some(ATTACKS), "seed": self._some(SEEDS)}
            return [*run_words(parts, self.store, results), *kind.split()[1:]]
        if kind == "gc":
            told = self.choice.sample(FOLDERS, self.choice.choice([1, 1, 2]))
            words = [word for name in told for word in ("--results", str(self.folder / name))]
            return ["store", "gc", *words, *store, *self.choice.choice([(), (), ("--older-than", "0.0003")])]
        if kind == "check":
            return ["store", "check", "--repair", *store]
        submissions = results / "submissions"
        if kind == "submit":
            records = sorted(results.glob("records/*/*/*"))
            if not records:
                return None
            words = ["submit", str(self.choice.choice(records)), "--contact", "a@example.org", "--paper", "A paper"]
            return [*words, "--output", str(submissions / f"s{self.choice.randrange(10)}"), *store]
        made = [path for path in submissions.glob("[!.]*") if path.is_dir()] if submissions.exists() else []
        if not made:
            return None
        words = ["verify", str(self.choice.choice(sorted(made))), *store]
        return [*words, "--write", "--by", "somebody"] if self.choice.random() < 0.5 else words

    def _some(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self.choice.sample(values, self.choice.choice([1, 1, 1, 2])))

    def start(self) -> None:
        """Start a random command, which will be killed at a random moment."""
        kind = self.choice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        words = self.command(kind)
        if words is None:
            return
        self.started += 1
        log = self.folder / "logs" / f"{self.started}.txt"
        length = min(self.seconds.get(kind, 3.0), LONGEST)
        spared = self.choice.random() < SPARED
        deadline = math.inf if spared else time.monotonic() + self.choice.uniform(0.0, 1.1 * length)
        self.running.append(Running(kind, fork(words, log), time.monotonic(), deadline, log))

    def tend(self) -> None:
        """Kill what is due, and look at what has ended."""
        now = time.monotonic()
        for each in list(self.running):
            ended, status = os.waitpid(each.pid, os.WNOHANG)
            if not ended and now >= each.deadline:
                os.killpg(each.pid, signal.SIGKILL)
                _, status = os.waitpid(each.pid, 0)
                ended = each.pid
            if ended:
                self.running.remove(each)
                self.end(each, status, now - each.began)
        self.seen |= {str(path.relative_to(self.folder)) for path in self.visible()}

    def end(self, each: Running, status: int, seconds: float) -> None:
        """Count a command that has ended or was killed."""
        said = each.log.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in said:
            self.faults.append(f"{each.kind} printed a traceback, see {each.log}")
        elif os.WIFSIGNALED(status):
            self.events[f"killed: {each.kind}"] += 1
            self.seconds[each.kind] = 1.05 * self.seconds.get(each.kind, 3.0)  # until some are not killed
        else:
            code = os.WEXITSTATUS(status)
            self.events[f"ended with {code}: {each.kind}"] += 1
            self.seconds[each.kind] = 0.7 * self.seconds.get(each.kind, 3.0) + 0.3 * seconds
            refused = any(text in said for text in REFUSALS.get(each.kind, ()))
            if code and not (code == 1 and refused):
                self.faults.append(f"{each.kind} ended with {code}, see {each.log}: {said[-300:]}")
        if not self.faults or str(each.log) not in self.faults[-1]:
            each.log.unlink()
        self.save()

    def visible(self) -> list[Path]:
        """Records, submissions and verifications that a reader finds."""
        found: list[Path] = []
        for name in FOLDERS:
            found += (self.folder / name / "records").rglob("*.json")
            found += (self.folder / name / "submissions").glob("[!.]*/submission.json")
            found += (self.folder / name / "verifications").glob("[!.]*.json")
        return found

    # The end

    def compare(self, expected: dict[str, Any]) -> None:
        """Run, submit and verify the whole once more, and compare it with the quiet run."""
        words = ["store", "check", "--repair", "--store", str(self.store)]
        self.alone(words, codes=(0, 1))
        for name in FOLDERS:
            results = self.folder / name
            for path in sorted((results / "submissions").glob("[!.]*")):
                self.alone(["verify", str(path), "--store", str(self.store)])
            known = findings(results)
            self.faults += [
                f"record {key} in {name} differs" for key in known if known[key] != expected["records"].get(key)
            ]
            found = whole(self.store, results, self.folder / f"end-{name}", self.alone)
            self.faults += [
                f"{part} in {name} differ from those of the quiet run"
                for part in found
                if found[part] != expected[part]
            ]
        present = {str(path.relative_to(self.folder)) for path in self.visible()}
        self.faults += [f"{name} was there and is not" for name in sorted(self.seen - present)]
        self.alone(["store", "check", "--repair", "--store", str(self.store)], codes=(0, 1))
        self.alone(["store", "check", "--store", str(self.store)])
        self.events["hidden files left by killed commands"] = sum(
            1 for name in FOLDERS for path in (self.folder / name).rglob(".*")
        )

    def alone(self, words: list[str], codes: tuple[int, ...] = (0,)) -> None:
        """Run a command to its end."""
        log = self.folder / "logs" / "alone.txt"
        _, status = os.waitpid(fork(words, log), 0)
        said = log.read_text(encoding="utf-8", errors="replace")
        if not os.WIFEXITED(status) or os.WEXITSTATUS(status) not in codes or "Traceback" in said:
            self.faults.append(f"{' '.join(words[:3])} ended with status {status}: {said[-500:]}")


def run_words(parts: dict[str, tuple[str, ...]], store: Path, results: Path) -> list[str]:
    """The words of a run."""
    from helpers import tiny

    words = ["run", "--no-controls", "--budget", "smoke", "--device", "cpu", "--threads", "1", *tiny.words()]
    for option, values in {**parts, "evaluator": EVALUATORS}.items():
        words += [word for value in values for word in (f"--{option}", value)]
    return [*words, "--store", str(store), "--results", str(results)]


def fork(words: list[str], log: Path) -> int:
    """Start a command in a process group of its own; returns its process."""
    log.touch()
    pid = os.fork()
    with contextlib.suppress(PermissionError, ProcessLookupError):  # both do it, since either may be first
        os.setpgid(pid, 0)
    if pid:
        return pid
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["privbench", *words]
        from privbench.benchmark.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def findings(results: Path) -> dict[str, Any]:
    """Scores and digests of artifacts of every record, by key."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("records/*/*/*/*.json"))]
    return {record["key"]: [record["scores"], record["artifacts"]] for record in records}


def whole(store: Path, results: Path, folder: Path, run: Callable[[list[str]], None]) -> dict[str, Any]:
    """Run the whole matrix, submit it and verify it; returns what is the same each time."""
    shutil.rmtree(folder, ignore_errors=True)
    parts = {"defense": DEFENSES, "attack": ATTACKS, "seed": SEEDS}
    run(run_words(parts, store, results))
    words = ["--contact", "a@example.org", "--paper", "A paper", "--store", str(store)]
    submission = folder / "submissions" / "all"
    run(["submit", str(results / "records"), "--output", str(submission), *words])
    run(["verify", str(submission), "--store", str(store), "--write", "--by", "somebody"])
    index = json.loads((submission / "submission.json").read_text(encoding="utf-8"))
    verified = json.loads((folder / "verifications" / "all.json").read_text(encoding="utf-8"))
    evidence = {name: facts for name, facts in index["files"].items() if name.startswith("evidence/")}
    checked = {key: [each[part] for part in ("level", "scores", "notes")] for key, each in verified["records"].items()}
    return {"records": findings(results), "evidence": evidence, "verification": checked}


def kill(folder: Path, kills: int, seed: int, processes: int) -> Kills:
    """Run until so many commands were killed; `faults` of the result are empty if all is well."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "PRIVBENCH_DATA": str(folder / "data"), "COLUMNS": "300"}
    preload()
    own = Kills(folder, random.Random())
    own.load()
    own.choice = random.Random(f"{seed}-{own.started}")
    path = folder / "expected.json"
    if not path.exists():
        quiet = whole(folder / "quiet-store", folder / "quiet-results", folder / "quiet-end", own.alone)
        path.write_text(json.dumps(quiet), encoding="utf-8")
    expected = json.loads(path.read_text(encoding="utf-8"))
    own.events["cells"] = len(expected["records"])
    began = time.monotonic()
    while own.kills < kills and not own.faults:
        while len(own.running) < processes:
            own.start()
        time.sleep(0.01)
        own.tend()
        if any(time.monotonic() - each.began > STUCK for each in own.running):
            own.faults.append("a command is stuck")
    for each in own.running:
        os.killpg(each.pid, signal.SIGKILL)
        os.waitpid(each.pid, 0)
        own.events["killed at the end"] += 1
    own.running.clear()
    own.events["seconds"] += round(time.monotonic() - began)
    own.save()
    own.compare(expected)
    own.save()
    return own


def preload() -> None:
    """Import what commands import, so that a fork starts at once."""
    import torch

    torch.set_num_threads(1)
    names = ["api", "cli.main", "submissions.verify", "submissions.bundle", "runners.local", "store.store"]
    for name in names:
        importlib.import_module(f"privbench.benchmark.{name}")
    from privbench.benchmark import registry

    for kind, chosen in {
        "defense": DEFENSES,
        "attack": ATTACKS,
        "evaluator": EVALUATORS,
        "dataset": ("digits",),
    }.items():
        for name in chosen:
            registry.load(kind, name)  # type: ignore[arg-type]
    for module in ("sklearn.datasets", "scipy.stats", "scipy.linalg", "pandas", "PIL.Image", "torch.nn.functional"):
        importlib.import_module(module)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=3, help="commands at a time")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder, or that of an interrupted run")
    given = parser.parse_args()
    done = kill(given.folder.absolute(), given.kills, given.seed, given.processes)
    for event, count in sorted(done.events.items()):
        print(f"{event}: {count}")
    print(f"kills: {done.kills}")
    print("\n".join(done.faults) or "no fault")
    return int(bool(done.faults))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # for `helpers`
    sys.exit(main())
