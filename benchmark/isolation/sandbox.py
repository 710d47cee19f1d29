"""Start of a process that imports an attack: bubblewrap where it works, else a plain process."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from .. import registry
from ..core.paths import weights_root

Popen = subprocess.Popen[bytes]
Method = Literal["bubblewrap", "process"]
#: Environment variables that the process gets; the others may name folders, addresses and passwords.
_VARIABLES = ("PATH", "LANG", "TZ", "TORCH_HOME", "PRIVBENCH_WEIGHTS")
_PREFIXES = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "CUDA_", "NVIDIA_", "CUBLAS_", "PYTORCH_", "HIP_", "ROCR_")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/sys", "/opt", "/nix/store")


@functools.cache
def method() -> Method:
    """Return how attacks are isolated on this machine."""
    program = shutil.which("bwrap")
    if program is None or not sys.platform.startswith("linux"):
        return "process"
    command = [program, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "true"]
    try:
        works = subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        works = False
    return "bubblewrap" if works else "process"


def start(module: str, *, hidden: Sequence[Path], folder: Path, accelerator: bool, log: IO[bytes]) -> Popen:
    """Start `python -m module` with pipes for its input and output.

    Args:
        module: to run.
        hidden: folders that the process must not see: data, store, results.
        folder: an empty one, where the process works.
        accelerator: it needs the devices of the machine.
        log: receives its standard error.
    """
    environment = {
        name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_PREFIXES)
    }
    environment["PYTHONPATH"] = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["HOME"] = environment["TMPDIR"] = str(folder)
    environment.setdefault("PRIVBENCH_WEIGHTS", str(weights_root().absolute()))
    environment.setdefault("TORCH_HOME", str(_torch_home()))
    command = [sys.executable, "-P", "-m", module]
    if method() == "bubblewrap":
        command = [*_bubblewrap(hidden, folder, accelerator), *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )


def _torch_home() -> Path:
    return Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")


def _bubblewrap(hidden: Sequence[Path], folder: Path, accelerator: bool) -> Iterator[str]:
    """Yield the command line that hides everything but Python, the installed packages and weights."""
    yield from (str(shutil.which("bwrap")), "--unshare-all", "--die-with-parent", "--new-session")
    yield from ("--proc", "/proc", "--dev-bind" if accelerator else "--dev", "/dev")
    if accelerator:
        yield "/dev"
    for path in _SYSTEM:
        if Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
        else:
            yield from ("--ro-bind-try", path, path)
    yield from ("--tmpfs", "/tmp")
    # Outer folders first, so that an inner one shows or hides what is in it.
    shown = {path: ("--ro-bind-try", str(path), str(path)) for path in _readable()}
    mounts = shown | {path.resolve(): ("--tmpfs", str(path.resolve())) for path in hidden if path.is_dir()}
    for place in sorted(mounts, key=lambda place: len(place.parts)):
        yield from mounts[place]
    yield from ("--bind", str(folder), str(folder), "--chdir", str(folder))


def _readable() -> set[Path]:
    """Return the folders of Python, of installed packages, of privbench itself and of weights."""
    found = {Path(entry) for entry in sys.path if entry}
    found |= {Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    found |= {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    found |= {Path(sys.executable).parent, Path(sys.executable).resolve().parent}
    package = Path(__file__).resolve().parents[2]
    found |= {
        package / name for name in ("__init__.py", "__main__.py", "benchmark", "attacks", "defenses", "evaluators")
    }
    found |= {weights_root().absolute(), _torch_home()}
    found |= set(_plugins())
    return {path for each in found for path in (each, each.resolve()) if path.is_absolute() and path.exists()}


def _plugins() -> Iterator[Path]:
    """Yield the places of the packages that register components; an editable one is not in the search path."""
    modules = {
        entry.target.partition(":")[0].partition(".")[0] for kind in registry.KINDS for entry in registry.entries(kind)
    }
    for name in sorted(modules - {"privbench"}):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None:
            continue
        yield from map(Path, spec.submodule_search_locations or ())
        if spec.origin and Path(spec.origin).is_file():
            yield Path(spec.origin)
