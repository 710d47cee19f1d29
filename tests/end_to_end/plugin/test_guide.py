"""The code and the tables of checks in docs/plugins.md are correct."""

import os
import re
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from helpers.installed import refresh_registry
from PIL import Image
from privbench import hash_folder
from privbench.benchmark import registry
from privbench.benchmark.core.config import Part
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.networks.classifiers.mcnn import MCNN
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.trained_models import state
from privbench.benchmark.testing.check import ConformanceError
from privbench.benchmark.testing.checks import check, checks
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("local_targets")
GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
#: In the order of the guide, a block each.
SHOWN = [
    ("defense", "LabelSmoothing"),
    ("attack", "RandomSearch"),
    ("evaluator", "Brightness"),
    ("dataset", "Stripes"),
    ("network", "SmallMLP"),
    ("dataset", "DigitsByMLP"),
    ("embedder", "Thumbnail"),
    ("perceptual", "Blurs"),
    ("dataset", "Pictures"),
    ("defense", "Finished"),
]
#: What components of the guide need besides their code.
SETTINGS = {"Finished": {"path": "finished.safetensors"}}


def table() -> str:
    """The checks as the guide lists them."""
    lines = []
    for kind in registry.KINDS:
        article = "an" if kind[0] in "aeiou" else "a"
        lines += ["", f"### Checks of {article} {kind}", "", "| check | requirement |", "|---|---|"]
        lines += [f"| `{each}` | {each.about} |" for each in checks(kind)]
    return "\n".join(lines[1:])


def test_the_checks_are_those_of_the_code() -> None:
    assert GUIDE.partition("<!-- checks -->\n")[2].partition("\n<!-- end -->")[0] == table()


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide")
    (folder / "guide_components.py").write_text("\n\n".join(BLOCKS[:-1]), encoding="utf-8")
    facts = folder / "guide_components-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: guide-components\nVersion: 1.0\n")
    names = {kind: [name for other, name in SHOWN if other == kind] for kind, _ in SHOWN}
    lines = []
    for kind, classes in names.items():
        lines += [f"[privbench.{kind}s]", *(f"{name.lower()} = guide_components:{name}" for name in classes)]
    (facts / "entry_points.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        refresh_registry()
        yield
    sys.modules.pop("guide_components", None)
    refresh_registry()


def write_pictures(root: Path) -> None:
    """Noise as the data set `Pictures` reads it, other noise in each part."""
    source = np.random.default_rng(0)
    for part in get_args(Part):
        for label in range(3):
            folder = root / "pictures" / part / str(label)
            folder.mkdir(parents=True)
            for i in range(8):
                Image.fromarray(source.integers(0, 256, (32, 32), np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with pictures, which is the working folder, and weights of a target in it."""
    write_pictures(tmp_path)
    save_file(state(MCNN((1, 32, 32), 5)), tmp_path / "finished.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: A target that was trained elsewhere has no loss and no loop, does not learn the task and ignores the images.
NOT_FOR_FINISHED = {"shapes", "resume"}


@pytest.mark.parametrize(("kind", "name"), SHOWN)
def test_components_of_the_guide_pass_the_checks(kind: str, name: str, files: Path) -> None:
    found = check(kind, name.lower(), data=files, settings=SETTINGS.get(name))
    failed = {result.check: result.message for result in found if result.state != "passed"}
    if name == "Finished":
        assert set(failed) == NOT_FOR_FINISHED
    else:
        assert failed == {}


class TestFiles:
    """Yesterday's number does not come back when a file of today has other content."""

    @staticmethod
    def keys(root: Path, dataset: str = "pictures", defense: str = "none") -> dict[str, str]:
        settings = {"defense.path": "finished.safetensors"} if defense == "finished" else {}
        matrix = Matrix(
            (Selection(dataset),),
            (Selection(defense),),
            (Selection("gmi"),),
            budget="smoke",
            settings=settings,
            controls=False,
        )
        return {stage.kind: stage.key for stage in build_plan(matrix.cells(), root).stages.values()}

    def test_another_picture_changes_every_key(self, files: Path) -> None:
        before = self.keys(files)
        assert self.keys(files) == before
        first, second = (files / "pictures" / "private_train" / "0" / f"{i}.png" for i in (0, 1))
        facts = first.stat()
        first.write_bytes(second.read_bytes())
        os.utime(first, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        after = self.keys(files)
        assert not set(before.values()) & set(after.values())

    def test_other_weights_at_the_same_path_change_the_target(self, files: Path) -> None:
        before = self.keys(files, "digits", "finished")
        save_file(state(MCNN((1, 32, 32), 5)), files / "finished.safetensors")
        after = self.keys(files, "digits", "finished")
        changed = {kind for kind in before if before[kind] != after[kind]}
        assert {"target", "evidence", "scores"} <= changed
        assert not {"judge", "second_judge"} & changed

    @pytest.mark.parametrize(
        ("faults", "problem"),
        [
            ({"fingerprint": lambda self, root: ""}, "leaves the fingerprint as it is"),
            (
                {
                    "fingerprint": lambda self, root: repr(
                        [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*.png"))]
                    )
                },
                "leaves the fingerprint as it is",
            ),
            (
                {"fingerprint": lambda self, root: hash_folder(root / "pictures" / "private_train")},
                "leaves the fingerprint as it is",
            ),
            (
                {
                    "fingerprint": lambda self, root: "",
                    "load": lambda self, part, root: refusing(super(type(self), self).load, part, root),
                },
                "leaves the fingerprint as it is",
            ),
        ],
        ids=["none", "times", "one-part", "decoder-errors-refused"],
    )
    def test_the_check_finds_pictures_that_are_not_in_the_key(
        self, faults: dict, problem: str, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
        pictures = registry.load("dataset", "pictures")
        monkeypatch.setattr(registry, "load", loading("pictures", type("Planted", (pictures,), faults)))
        with pytest.raises(ConformanceError, match=problem):
            one_check("dataset")("pictures", data=files)
        assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before
        assert not [path for path in files.rglob("*") if path.is_symlink()]

    @pytest.mark.parametrize("hashes", [{}, {"weights": "0" * 64}])
    def test_the_check_finds_weights_that_are_not_in_the_key(
        self, hashes: dict, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (files / "finished.safetensors").read_bytes()
        finished = registry.load("defense", "finished")
        planted = type("Planted", (finished,), {"files": lambda *_, **__: hashes})
        monkeypatch.setattr(registry, "load", loading("finished", planted))
        settings = {"path": str(files / "finished.safetensors")}
        with pytest.raises(ConformanceError, match=r"reads .*finished\.safetensors, and other content of it would"):
            one_check("defense")("finished", settings=settings, data=files)
        assert (files / "finished.safetensors").read_bytes() == before

    def test_published_checksums_need_no_fingerprint(self, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pictures = registry.load("dataset", "pictures")
        known = hash_folder(files / "pictures")

        def load(self, part, root):
            if hash_folder(root / "pictures") != known:
                raise MissingDataError("these are not the published pictures; download them again")
            return pictures.load(self, part, root)

        planted = type("Planted", (pictures,), {"fingerprint": lambda self, root: "", "load": load})
        monkeypatch.setattr(registry, "load", loading("pictures", planted))
        one_check("dataset")("pictures", data=files)


def refusing(load, part, root):
    """Turn a decoder's error into one of privbench's, which is no checksum."""
    try:
        return load(part, root)
    except (OSError, SyntaxError) as cause:
        raise MissingDataError("a picture is damaged; replace it") from cause


def loading(name: str, cls: type):
    """`registry.load` with another class under a name."""
    usual = registry.load
    return lambda kind, wanted: cls if wanted == name else usual(kind, wanted)


def one_check(kind: str):
    return next(each for each in checks(kind) if each.name == "key")


def test_the_block_for_pytest_runs() -> None:
    scope: dict = {}
    exec(BLOCKS[-1], scope)
    scope["test_conformance"](next(each for each in checks("defense") if each.name == "described"))
