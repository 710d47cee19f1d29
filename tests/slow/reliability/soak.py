"""Runs, kills, corruptions and clean-ups on one store for a while; then nothing may be lost, damaged or different.

    python tests/slow/reliability/soak.py --minutes 20 --folder /tmp/soak

A quiet run of a matrix comes first. Then, until time is up, runs of random parts of it share a second store, while at
random moments one of them is killed, bytes of an artifact or checkpoint are changed, cut off or swapped, and `store gc`
and `store check --repair` are run. In the end the whole matrix is run once more: its records must equal those of the
quiet run in scores and artifacts, `store check` must find nothing, and no record seen in between may be gone.

With `--shared` the store is a URL, the runs are on two machines with a local tier each, files of all three tiers are
damaged, and the last run is on a third machine that has nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

DEFENSES = ("none", "bido_hsic")
ATTACKS = ("gmi", "kedmi", "decoder")
SEEDS = (0, 1)
#: Of a process that does nothing wrong; in seconds.
LONGEST_RUN = 900.0


@dataclass
class Soak:
    """One soak: where it happens and what has happened."""

    folder: Path
    choice: random.Random
    processes: int
    shared: bool = False
    settings: tuple[str, ...] = ()
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @property
    def store(self) -> str:
        return f"file://{self.folder.absolute()}/shared" if self.shared else str(self.folder / "store")

    @property
    def tiers(self) -> list[Path]:
        """Folders that hold artifacts."""
        local = [path for path in self.folder.glob("machine*/stores/*") if path.is_dir()]
        return [self.folder / "shared", *local] if self.shared else [self.folder / "store"]

    def machine(self, name: str | None = None) -> dict[str, str]:
        """The environment of a command on a machine, by default one of two."""
        machine = name or self.choice.choice(["machine1", "machine2"])
        return {**os.environ, "PRIVBENCH_CACHE": str(self.folder / machine)}

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "privbench", *words]

    def run_command(self, store: str, results: Path, parts: dict[str, tuple[str, ...]]) -> list[str]:
        words = [
            "run",
            "--no-controls",
            "--dataset",
            "digits",
            "--budget",
            "smoke",
            "--store",
            str(store),
            "--results",
            str(results),
        ]
        for option, values in parts.items():
            for value in values:
                words += [f"--{option}", value]
        for setting in self.settings:
            words += ["--set", setting]
        return self.command(*words)

    def whole(self, name: str) -> dict[str, tuple[object, object]]:
        """Run the whole matrix alone, and return what its records say."""
        store, results = self.store if not name else str(self.folder / f"{name}store"), self.folder / f"{name}results"
        parts = {"defense": DEFENSES, "attack": ATTACKS, "seed": tuple(map(str, SEEDS))}
        command = self.run_command(store, results, parts)
        done = subprocess.run(command, capture_output=True, env=self.machine("machine3"), check=False)
        if done.returncode not in (0, 1) or b"Traceback" in done.stderr:
            self.faults.append(f"the whole matrix ended with {done.returncode}: {done.stderr.decode()[-500:]}")
        return findings(results)

    def part(self) -> None:
        """Start a run of a random part of the matrix."""
        parts = {
            "defense": self._some(DEFENSES),
            "attack": self._some(ATTACKS),
            "seed": self._some(tuple(map(str, SEEDS))),
        }
        log = (self.folder / "log.txt").open("ab")
        with log:
            command = self.run_command(self.store, self.results, parts)
            if self.choice.random() < 0.3:
                command += ["--jobs", "2"]
            environment = self.machine()
            self.running.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            )
        self.events["runs started"] += 1

    def _some(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self.choice.sample(values, self.choice.randint(1, len(values))))

    def tend(self) -> None:
        """Note which runs have ended, and start others in their place."""
        for process in [each for each in self.running if each.poll() is not None]:
            self.running.remove(process)
            self.events[f"runs ended with {process.returncode}"] += 1
            if process.returncode not in (0, 1):
                self.faults.append(f"a run that nobody killed ended with {process.returncode}")
        while len(self.running) < self.processes:
            self.part()
        self.seen |= {path.name for path in self.results.rglob("*.json")}

    def disturb(self) -> None:
        """One random fault."""
        how = self.choice.choice(["kill", "damage", "damage", "gc", "repair", "ls"])
        if how == "kill" and self.running:
            process = self.choice.choice(self.running)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.running.remove(process)
            self.events["runs killed"] += 1
        elif how == "damage":
            self.damage()
        elif how in ("gc", "repair", "ls"):
            words = {
                "gc": ("store", "gc", "--results", str(self.results), "--older-than", "0.0005"),
                "repair": ("store", "check", "--repair"),
                "ls": ("store", "ls"),
            }[how]
            command = self.command(*words, "--store", self.store)
            environment = self.machine()
            done = subprocess.run(command, capture_output=True, timeout=LONGEST_RUN, env=environment, check=False)
            if done.returncode not in (0, 1) or b"Traceback" in done.stderr:
                self.faults.append(f"store {how} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
            self.events[f"store {how}"] += 1

    def damage(self) -> None:
        """Change a file of an artifact or checkpoint."""
        tiers = [tier for tier in self.tiers if tier.exists()]
        if not tiers:
            return
        tier = self.choice.choice(tiers)
        files = [path for path in tier.rglob("*") if _is_content(path, tier)]
        if not files:
            return
        path, how = self.choice.choice(files), self.choice.choice(["flip", "cut", "empty", "swap", "remove"])
        try:
            data = bytearray(path.read_bytes())
            if how == "flip" and data:
                data[self.choice.randrange(len(data))] ^= 1 << self.choice.randrange(8)
                path.write_bytes(data)
            elif how == "cut":
                path.write_bytes(data[: len(data) // 2])
            elif how == "empty":
                path.write_bytes(b"")
            elif how == "swap":
                shutil.copyfile(self.choice.choice(files), path)
            else:
                path.unlink()
        except (OSError, shutil.SameFileError):
            return  # somebody else moved it first
        self.events[f"files damaged: {how}"] += 1

    def check(self, machine: str) -> None:
        """What is damaged still, and was not read again, may be repaired once; then nothing may be wrong."""
        command = self.command("store", "check", "--store", self.store)
        environment = self.machine(machine)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            subprocess.run([*command, "--repair"], capture_output=True, env=environment, check=False)
            self.events[f"leftovers of {machine} repaired in the end"] = len(done.stdout.splitlines())
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            self.faults.append(f"store check on {machine}: {done.stdout[-500:]} {done.stderr[-500:]}")

    def finish(self) -> None:
        """Stop what runs."""
        for process in self.running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.events["runs killed"] += 1
        self.running.clear()


def _is_content(path: Path, tier: Path) -> bool:
    parts = path.relative_to(tier).parts
    return path.is_file() and parts[0] not in ("locks", "tmp", "quarantine", "format.json")


def findings(results: Path) -> dict[str, tuple[object, object]]:
    """Scores and digests of artifacts of every record, by key."""
    found: dict[str, tuple[object, object]] = {}
    for path in sorted(results.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[record["key"]] = (record["scores"], record["artifacts"])
    return found


def soak(
    folder: Path, minutes: float, seed: int, processes: int, *, shared: bool = False, settings: tuple[str, ...] = ()
) -> Soak:
    """Run one; `faults` of the result are empty if all is well."""
    folder.mkdir(parents=True, exist_ok=True)
    own = Soak(folder, random.Random(seed), processes, shared, settings)
    expected = own.whole("quiet-")
    own.events["cells"] = len(expected)
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        own.tend()
        time.sleep(own.choice.uniform(1.0, 15.0))
        own.disturb()
    own.finish()
    found = own.whole("")
    machines = ["machine1", "machine2", "machine3"] if shared else ["machine3"]
    for machine in machines:
        own.check(machine)
    present = {path.name for path in own.results.rglob("*.json")}
    own.faults += [f"record {name} was there and is not" for name in sorted(own.seen - present)]
    own.faults += [f"record {key} is missing" for key in sorted(expected.keys() - found.keys())]
    own.faults += [
        f"record {key} differs" for key in sorted(expected.keys() & found.keys()) if expected[key] != found[key]
    ]
    if b"Traceback" in (folder / "log.txt").read_bytes():
        own.faults.append("a run printed a traceback, see log.txt")
    return own


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--shared", action="store_true", help="two machines and a shared tier")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    done = soak(given.folder, given.minutes, given.seed, given.processes, shared=given.shared)
    for event, count in sorted(done.events.items()):
        print(f"{event}: {count}")
    print("\n".join(done.faults) or "no fault")
    return int(bool(done.faults))


if __name__ == "__main__":
    sys.exit(main())
