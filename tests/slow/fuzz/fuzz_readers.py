"""What privbench reads from strangers, each as a function of bytes: it takes them or refuses them in one sentence.

Used by `test_readers.py`, which changes valid documents, and by `fuzz.py`, which searches by coverage.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from privbench.benchmark.errors import PrivbenchError

#: Longest refusal that is still a sentence, in characters.
LONGEST = 2000
SECONDS = 5.0


def read_record(data: bytes, folder: Path) -> None:
    from privbench.benchmark.records.record import read

    path = folder / "record.json"
    path.write_bytes(data)
    record = read(path)
    again = folder / "again.json"
    again.write_text(record.text(), encoding="utf-8")
    assert read(again) == record


def read_artifact(data: bytes, folder: Path) -> None:
    """A manifest of the store, as it stands and with a right checksum."""
    from privbench.benchmark.store.manifest import Manifest, seal

    whole = json_object(data)
    for content in (data, seal({name: value for name, value in whole.items() if name != "checksum"})):
        decoded = Manifest.decode(content)
        assert Manifest.decode(decoded.encode()) == decoded


def read_matrix(data: bytes, folder: Path) -> None:
    from privbench.benchmark.pipeline import matrix_file

    path = folder / "matrix.toml"
    path.write_bytes(data)
    matrix_file.read_matrix(path).cells()


def read_settings(data: bytes, folder: Path) -> None:
    """A value of `--set`, for each kind of component and as a whole."""
    from privbench.benchmark.pipeline.cell import Selection
    from privbench.benchmark.pipeline.matrix import Matrix, parse_settings

    text = data.decode("utf-8", "replace")
    scope, known, value = text.partition("=")
    names = [text, f"attack.iterations={value}", f"defense.recipe.{scope}={value}"] if known else [text]
    for name in names:
        try:
            matrix = Matrix((Selection("digits"),), (Selection("none"),), (Selection("kedmi"),), None, (0,), "smoke")
            Matrix(**{**vars(matrix), "settings": parse_settings([name])}).cells()
        except PrivbenchError as error:
            refused(error)


def read_selection(data: bytes, folder: Path) -> None:
    from privbench.benchmark.pipeline.cell import Selection
    from privbench.benchmark.pipeline.resolve import resolve

    for kind in ("dataset", "defense", "attack", "evaluator"):
        try:
            resolve(kind, Selection.parse(data.decode("utf-8", "replace")), "smoke", {})
        except PrivbenchError as error:
            refused(error)


def read_export(data: bytes, folder: Path) -> None:
    from privbench.benchmark.exports.manifest import parse_manifest

    parse_manifest(data, "manifest.json")


def read_zoo(data: bytes, folder: Path) -> None:
    from privbench.benchmark.exports.zoo import locate, open_zoo

    (folder / "zoo.json").write_bytes(data)
    zoo = open_zoo(folder)
    for name in zoo.targets:
        try:
            locate(zoo, name)
        except PrivbenchError as error:
            refused(error)


def read_safetensors(data: bytes, folder: Path) -> None:
    from privbench.benchmark.files.safetensors_header import layouts

    layouts(data, "weights.safetensors")
    head = len(data).to_bytes(8, "little")
    layouts(head + data, "weights.safetensors")


def read_tensors(data: bytes, folder: Path) -> None:
    from privbench.benchmark.files.tensors import unpack

    unpack(data)


def read_submission(data: bytes, folder: Path) -> None:
    from privbench.benchmark.records.submission import read_submission

    (folder / "submission.json").write_bytes(data)
    read_submission(folder)


def read_finding(data: bytes, folder: Path) -> None:
    """What a maintainer found about a submission."""
    from privbench.benchmark.records.verification import Verification, write_verification

    path = folder / "finding.json"
    path.write_bytes(data)
    found = Verification.read(path)
    assert Verification.read(write_verification(found, folder, "again")) == found


def read_picture(data: bytes, folder: Path) -> None:
    """An image of any form."""
    from privbench.benchmark.datasets import _decoding
    from privbench.benchmark.errors import MissingDataError

    found = _decoding.try_decode(["a"], lambda _: data, lambda image: image, lambda name, fault: f"{name}.png {fault}")
    for pixels in found:
        if isinstance(pixels, str):
            raise MissingDataError(pixels)
        assert pixels.shape[0] == 3


def read_archive(data: bytes, folder: Path) -> None:
    """The aligned images of CelebA as an archive."""
    from privbench.benchmark.datasets._celeba_pictures import find_pictures

    (folder / "celeba").mkdir()
    (folder / "celeba" / "img_align_celeba.zip").write_bytes(data)
    pictures = find_pictures(folder)
    for name in [f"{number:06d}.jpg" for number in range(1, 5)]:
        if pictures.file(name) is not None:
            facts = pictures.identify([name])[name]
            assert facts.startswith(f"{len(pictures.read(name))}-")


def read_lists(data: bytes, folder: Path) -> None:
    """Both lists of CelebA, in the forms that people have."""
    from privbench.benchmark.datasets import _celeba_files as release
    from privbench.benchmark.datasets.files import read_text

    (folder / "celeba").mkdir()
    for name in (release.IDENTITIES, release.ATTRIBUTES):
        (folder / "celeba" / name).write_bytes(data)
        text = read_text(folder, release.source(folder, name))
        try:
            if name == release.IDENTITIES:
                assert all(identity >= 0 for identity in release.read_identities(folder / name, text).values())
            else:
                found = release.read_attributes(folder / name, text)
                found.of(list(found.rows))
        except PrivbenchError as error:
            refused(error)


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "record": read_record,
    "manifest": read_artifact,
    "matrix": read_matrix,
    "settings": read_settings,
    "selection": read_selection,
    "export": read_export,
    "zoo": read_zoo,
    "safetensors": read_safetensors,
    "tensors": read_tensors,
    "submission": read_submission,
    "finding": read_finding,
    "picture": read_picture,
    "archive": read_archive,
    "lists": read_lists,
}


def json_object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def refused(error: BaseException) -> None:
    """Require one sentence that a user can read."""
    assert isinstance(error, PrivbenchError), f"{type(error).__name__}: {error}"
    message = str(error)
    assert message
    assert message.isprintable(), repr(message)
    assert len(message) <= LONGEST, f"{len(message)} characters: {message[:300]}"


def attempt(name: str, data: bytes, folder: Path) -> bool:
    """Give bytes to a reader; whether it took them. Anything but taking or refusing them is an error."""
    with confined(folder):
        try:
            READERS[name](data, folder)
        except PrivbenchError as error:
            refused(error)
            return False
        return True


class _Guard:
    """The folder that may be written to, and what was tried outside; audit hooks stay for the life of a process."""

    folder: Path | None = None
    outside: ClassVar[list[str]] = []
    installed = False


#: Positions of the written path and of the folder that it is relative to, a descriptor or -1.
_WRITES = {
    "os.mkdir": (0, 2),
    "os.rename": (1, 3),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.symlink": (1, 2),
    "os.link": (1, 3),
}
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "socket.connect", "pickle.find_class", "os.fork")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _Guard.folder is None:
        return
    if event in _FORBIDDEN:
        _Guard.outside.append(event)
    path: object = None
    folder = Path()
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        path = arguments[0]
    elif event in _WRITES:
        where, descriptor = (arguments[position] for position in _WRITES[event])
        path = where
        if isinstance(descriptor, int) and descriptor >= 0:
            folder = Path(f"/proc/self/fd/{descriptor}").resolve()
    if isinstance(path, str | bytes | Path):
        written = (folder / (path.decode() if isinstance(path, bytes) else path)).absolute()
        if not written.is_relative_to(_Guard.folder) and "__pycache__" not in written.parts:
            _Guard.outside.append(f"{event} {written}")


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Fail on whatever the block writes outside a folder, on a process it starts and on a connection it opens."""
    if not _Guard.installed:
        sys.addaudithook(_audit)
        _Guard.installed = True
    _Guard.folder, _Guard.outside = folder.absolute(), []
    try:
        yield
    finally:
        _Guard.folder = None
    assert not _Guard.outside, _Guard.outside
