"""Search for input that a reader neither takes nor refuses, guided by coverage.

    pip install atheris
    python tests/slow/fuzz/fuzz.py                    # every reader, 12,000 inputs each
    python tests/slow/fuzz/fuzz.py record --runs 1000000

Each reader runs in a process of its own and ends at the first finding, which it prints and keeps as `finding-*`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzz_documents import documents
from fuzz_readers import READERS, SECONDS, attempt

LONGEST_INPUT = 20_000


def search(name: str, runs: int, seed: int) -> None:
    """Fuzz one reader in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["privbench"]):
        _once(name, documents()[name][0])
    atheris.instrument_func(READERS[name])
    with tempfile.TemporaryDirectory() as corpus:
        for index, data in enumerate(documents()[name]):
            Path(corpus, str(index)).write_bytes(data)
        options = [f"-runs={runs}", f"-seed={seed}", f"-timeout={SECONDS:.0f}", f"-max_len={LONGEST_INPUT}"]
        options += [f"-artifact_prefix=finding-{name}-", "-verbosity=0", "-rss_limit_mb=4096"]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: _once(name, data))
        atheris.Fuzz()


def _once(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attempt(name, data, Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"{', '.join(READERS)}; default: all")
    parser.add_argument("--runs", type=int, default=12_000, help="inputs per reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.readers) - READERS.keys():
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(READERS)}")
    if given.here:
        search(given.readers[0], given.runs, given.seed)
    failed = 0
    for name in given.readers or READERS:
        began = time.monotonic()
        command = [sys.executable, __file__, name, "--runs", str(given.runs), "--seed", str(given.seed), "--here"]
        code = subprocess.run(command, check=False).returncode
        failed += code != 0
        print(f"{name}: {given.runs} inputs in {time.monotonic() - began:.0f} s, {'FINDING' if code else 'no finding'}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
