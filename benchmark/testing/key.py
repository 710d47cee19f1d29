"""Requirement of every kind: what a component reads is in its keys.

Files below the data folder, and files that a field names, are tried on a tree of links: one link is replaced by a
changed copy of its file, of the same size and modification time. The files themselves are only read.
"""

import contextlib
import os
import shutil
import site
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..core.config import Protocol, StageKind, decided_stages
from ..core.paths import cache_root, store_root
from ..errors import PrivbenchError
from ..files.hashing import hash_file
from .check import fail, require
from .component import ComponentUnderTest
from .watch import Reads

#: Files that are tried at most, evenly spaced, and besides them one with each ending.
_TRIED = 8
_CODE = (".py", ".pyc", ".pyd", ".so", ".dylib", ".dll")
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/System", "/Library")
_PAGE = "(see 'Files' in docs/plugins.md)"
#: Hashes or other identities of what a component reads, given its fields and the data folder.
Identify = Callable[[Any, Path], object]


def require_settings_in_keys(subject: ComponentUnderTest, stages: Sequence[StageKind]) -> None:
    """Require that every field of a component is in the key of one of the stages that it is used in.

    Raises:
        ConformanceError: a field that declares other stages is in no key.
    """
    for name, field in subject.cls.model_fields.items():
        require(
            not set(stages).isdisjoint(decided_stages(field)),
            f"the field {name} is in no key, since it declares the stages {', '.join(decided_stages(field))}",
            f"declare those of {' and '.join(stages)} that read it, or leave out `stages`",
        )


def require_in_key(
    subject: ComponentUnderTest, stage: StageKind, reads: Reads, before: Sequence[StageKind] = ()
) -> None:
    """Require that what a stage of a defense, attack or evaluator read is in its key.

    Args:
        subject: the component.
        stage: that read.
        reads: what it read.
        before: stages of the component whose keys are in that of `stage`.

    Raises:
        ConformanceError: a file, or a field of the protocol or of the component, is not.
    """
    _require_fields(stage, reads.fields)
    for name in sorted(reads.settings):
        decides = decided_stages(subject.cls.model_fields[name])
        require(
            not {stage, *before}.isdisjoint(decides),
            f"the stage {stage} reads the field {name}, which declares that it decides {' and '.join(decides)} alone",
            f"add {stage} to its `stages`, or leave them out",
        )
    hashes = subject.choice.files(stage)
    fix = f"return its hash, privbench.hash_file(path), from files(stage) for the stage {stage!r} {_PAGE}"

    def identify(component: Any, _: Path) -> object:
        return dict(component.files(stage))

    for path, place in _places(subject, relevant(subject, reads), None):
        if hash_file(path) not in hashes.values() and not (place and _changes(subject, identify, place, path)):
            fail(f"the stage {stage} reads {path}, and other content of it would leave the key as it is", fix)


def require_hashed(subject: ComponentUnderTest, reads: Reads, hashes: Mapping[str, str], hook: str) -> None:
    """Require that the files that the constructor of a network read are among `hashes`, the result of `hook`.

    Raises:
        ConformanceError: one is not.
    """
    for path in relevant(subject, reads):
        found = hash_file(path)
        require(
            found in hashes.values() or _is_verified(path, found),
            f"the constructor reads {path}, and other content of it would leave the keys as they are",
            f"return its hash, privbench.hash_file(path), from the class method {hook} {_PAGE}",
        )


def require_data_in_key(subject: ComponentUnderTest, by_part: Mapping[str, Reads]) -> None:
    """Require that the fingerprint changes with the files that `load` read, or that `load` refuses changed ones.

    Args:
        subject: a data set.
        by_part: what loading each part read.

    Raises:
        ConformanceError: a changed file would leave the keys as they are.
    """

    def identify(component: Any, root: Path) -> object:
        return component.fingerprint(root), dict(component.files())

    hashes = {subject.component.fingerprint(subject.data), *subject.component.files().values()}
    parts = {path: part for part, reads in by_part.items() for path in relevant(subject, reads)}
    for path, place in _places(subject, _some(sorted(parts)), subject.data):
        if place is None:
            require(
                hash_file(path) in hashes,
                f"load reads {path}, which is neither in the data folder nor named by a field, and whose hash is not "
                "among those of files()",
                f"read it below `root`, or return its hash, privbench.hash_file(path), from files() {_PAGE}",
            )
            continue
        others = [other for other in parts if other.suffix == path.suffix and other != path]
        if not _changes(subject, identify, place, path) and not _refused(subject, place, path, parts[path], others):
            fail(
                f"other content of {path} leaves the fingerprint as it is",
                "let fingerprint(root) return privbench.hash_folder(...) or hash_file(...) of all that load reads "
                f"{_PAGE}",
            )


def _require_fields(stage: StageKind, names: Iterable[str]) -> None:
    for name in sorted(names):
        decides = decided_stages(Protocol.model_fields[name])
        require(
            stage in decides,
            f"the stage {stage} reads protocol.{name}, which is in the keys of {', '.join(decides)} alone",
            "do without it, or declare a field of your own",
        )


def relevant(subject: ComponentUnderTest, reads: Reads) -> list[Path]:
    """Return the files that were read, without code, installed packages, system folders and privbench's caches.

    Files of the component's own package count, other than code.
    """
    own = _package(subject.cls)
    ignored = [*_libraries(), cache_root(), Path(store_root().root), *map(Path, _SYSTEM)]
    if "matplotlib" in sys.modules:
        ignored.append(Path(sys.modules["matplotlib"].get_cachedir()))
    folders = [folder.resolve() for folder in ignored]

    def is_ignored(path: Path) -> bool:
        real = path.resolve()
        if real.suffix.lower() in _CODE or real.parent.suffix in (".dist-info", ".egg-info"):
            return True
        inside = [folder for folder in folders if real.is_relative_to(folder)]
        return any(not (own and own.is_relative_to(folder) and real.is_relative_to(own)) for folder in inside)

    return [path for path in reads.files() if not is_ignored(path)]


@cache
def _libraries() -> tuple[Path, ...]:
    """Return the folders of Python and of installed packages."""
    found = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), site.getusersitepackages()}
    return tuple(Path(folder) for folder in sorted(found))


def _package(cls: type[Any]) -> Path | None:
    """Return the folder of the package that defines a class; `None` for a single module."""
    top = sys.modules.get(cls.__module__.partition(".")[0])
    folders = list(getattr(top, "__path__", ()))
    return Path(folders[0]).resolve() if folders else None


def _is_verified(path: Path, sha256: str) -> bool:
    """Return whether a file's name ends in the beginning of its SHA-256, which loaders of such files verify."""
    stated = path.stem.rpartition("-")[2]
    return len(stated) >= 8 and sha256.startswith(stated)


def _some(paths: Sequence[Path]) -> list[Path]:
    """Choose the files to try."""
    step = max(1, len(paths) // _TRIED)
    chosen = {*paths[::step][:_TRIED], *paths[-1:], *{path.suffix: path for path in paths}.values()}
    return sorted(chosen)


#: A folder or file that the component was given, and the field that names it; without one, it is the data folder.
_Place = tuple[Path, str | None]


def _places(
    subject: ComponentUnderTest, paths: Iterable[Path], data: Path | None
) -> Iterator[tuple[Path, _Place | None]]:
    """Yield each path with the place below which it lies; `None` for a path that the component's code names."""
    known: list[_Place] = [] if data is None else [(data, None)]
    for name in type(subject.component).model_fields:
        value = getattr(subject.component, name)
        if isinstance(value, str | Path) and str(value) not in ("", "."):
            with contextlib.suppress(OSError, ValueError):
                if Path(value).expanduser().exists():
                    known.append((Path(value).expanduser(), name))
    for path in paths:
        yield path, next((place for place in known if _is_below(path, place[0])), None)


def _is_below(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder.absolute()) or path.resolve().is_relative_to(folder.resolve())


def _changes(subject: ComponentUnderTest, identify: Identify, place: _Place, path: Path) -> bool:
    """Return whether the identity of what is read changes with one byte of a file, or the changed file is refused."""
    with _linked(place[0], path) as (root, link):
        component, data = _moved(subject, place, root)
        before = identify(component, data)
        with _changed(link, _flip(0.5)):
            try:
                return identify(component, data) != before
            except PrivbenchError:
                return True


def _refused(subject: ComponentUnderTest, place: _Place, path: Path, part: str, others: Sequence[Path]) -> bool:
    """Return whether `load` refuses every kind of change of a file.

    A decoder's error is not enough: a valid file with other content, such as another image, must be refused, too.
    """
    changes = [_flip(0.5), _flip(1), _append, *(_replace_by(other) for other in others[:1])]
    for change in changes:
        with _linked(place[0], path) as (root, link), _changed(link, change):
            component, data = _moved(subject, place, root)
            try:
                component.load(part, data)
            except PrivbenchError:
                continue
            except Exception:
                return False
            return False
    return True


def _moved(subject: ComponentUnderTest, place: _Place, root: Path) -> tuple[Any, Path]:
    """Return the component and the data folder with a place moved to `root`."""
    name = place[1]
    if name is None:
        return subject.component, root
    kind = type(getattr(subject.component, name))
    return subject.component.model_copy(update={name: str(root) if kind is str else root}), subject.data


@contextlib.contextmanager
def _linked(place: Path, path: Path) -> Iterator[tuple[Path, Path]]:
    """Make a tree of links to a place's files in a temporary folder; yield the place and the file in it."""
    place = place.absolute()
    with tempfile.TemporaryDirectory(prefix="privbench-check-") as folder:
        root = Path(folder) / place.name
        if not place.is_dir():
            root.symlink_to(place)
            yield root, root
            return
        relative = (
            path.relative_to(place) if path.is_relative_to(place) else path.resolve().relative_to(place.resolve())
        )
        root.mkdir()
        for entry in place.iterdir():
            if entry.name == relative.parts[0]:
                _link(entry, root / entry.name)
            else:
                (root / entry.name).symlink_to(entry)
        yield root, root / relative


def _link(source: Path, target: Path) -> None:
    """Link a file, or rebuild a folder with links to its files."""
    if not source.is_dir():
        target.symlink_to(source)
        return
    target.mkdir()
    for entry in source.iterdir():
        _link(entry, target / entry.name)


@contextlib.contextmanager
def _changed(link: Path, change: Callable[[Path], None]) -> Iterator[None]:
    """Replace a link by a changed copy of its file, with the same modification time; restore it afterwards."""
    original = link.resolve()
    facts = original.stat()
    link.unlink()
    try:
        shutil.copyfile(original, link)
        link.chmod(0o600)
        change(link)
        os.utime(link, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        yield
    finally:
        link.unlink(missing_ok=True)
        link.symlink_to(original)


def _flip(where: float) -> Callable[[Path], None]:
    """Return a change of one byte, at a share of the length."""

    def change(path: Path) -> None:
        size = path.stat().st_size
        with path.open("r+b") as stream:
            position = min(size - 1, int(size * where)) if size else 0
            stream.seek(position)
            byte = stream.read(1) or b"\0"
            stream.seek(position)
            stream.write(bytes([byte[0] ^ 1]))

    return change


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\n")


def _replace_by(other: Path) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        shutil.copyfile(other, path)

    return change
