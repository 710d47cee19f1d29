"""Run mypy on the package under its import name, whatever the checkout's folder is called.

The repository is the package, so its folder name is not the package's. A link named `privbench` in a temporary folder
gives mypy the right name.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "privbench").symlink_to(root, target_is_directory=True)
        command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml")]
        command += ["--cache-dir", str(root / ".mypy_cache"), "-m", "privbench"]
        for package in ("attacks", "benchmark", "defenses", "evaluators"):
            command += ["-p", f"privbench.{package}"]
        return subprocess.run(command, cwd=folder, env=os.environ | {"MYPYPATH": folder}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
