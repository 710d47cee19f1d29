"""Every check fails for some component, with a message that names the fix; correct components pass."""

import sys
import unittest
from pathlib import Path

import pytest
from helpers.installed import refresh_registry
from privbench.benchmark import registry
from privbench.benchmark.errors import PrivbenchError, UnknownComponentError
from privbench.benchmark.testing.check import ConformanceError
from privbench.benchmark.testing.checks import check, checks

pytestmark = pytest.mark.usefixtures("local_targets")
#: (kind, check) -> class in `faulty_components` -> words of the problem and of the fix in the message.
FAULTY = {
    ("defense", "registered"): {
        "nowhere": ("does not import", "install it again"),
        "NOT_A_DEFENSE": ("subclass of Defense", "entry-points"),
    },
    ("defense", "described"): {
        "Undescribed": ("no docstring", "add one"),
        "Unfinished": ("as in", "full stop"),
        "Unversioned": ("version is 0", "integer from 1"),
    },
    ("defense", "key"): {
        "Borrower": ("the stage target reads", "hash_file"),
        "Peeker": ("reads protocol.draws", "field of your own"),
    },
    ("defense", "fields"): {
        "Nameless": ("steps", "setting(default, "),
        "Unbounded": ("margin", "ge, gt, le or lt"),
    },
    ("defense", "configuration"): {
        "Required": ("margin", "default"),
        "Misbudgeted": ("budget quick", "in its range"),
        "Mispreset": ("preset 'mine'", "presets"),
        "Thawed": ("can be changed", "frozen=True"),
    },
    ("defense", "shapes"): {
        "PerImage": ("shape (", "scalar"),
        "Constant": ("without a gradient", "network.logits"),
        "StillTraining": ("training mode", "eval()"),
    },
    ("defense", "determinism"): {"Gambler": ("differ", "context.generator")},
    ("defense", "inputs"): {"Vandal": ("pixels", "copy")},
    ("defense", "strict_loading"): {
        "Forgetful": ("other logits", "register_buffer"),
        "Rebuilder": ("extra", "network(protocol)"),
        "Careless": ("missing", "load_state_dict"),
    },
    ("defense", "resume"): {
        "Amnesiac": ("interrupted", "`state`"),
        "Loopless": ("no loop", "context.fit"),
    },
    ("defense", "one_class"): {
        "Comparer": ("ZeroDivisionError", "PrivbenchError"),
        "Exploder": ("not finite", "PrivbenchError"),
    },
    ("defense", "record"): {"Mislabelled": ("ValidationError", "correct it")},
    ("attack", "registered"): {"nowhere_attack": ("does not import", "install it again")},
    ("attack", "described"): {},
    ("attack", "key"): {
        "Copier": ("the stage prior reads", "hash_file"),
        "Forgetter": ("the stage prior reads the field steps", "add prior to its `stages`"),
        "Outsider": ("the field steps is in no key", "prior and evidence"),
    },
    ("attack", "fields"): {},
    ("attack", "configuration"): {},
    ("attack", "declaration"): {
        "Grey": ("'grey_box'", "white_box"),
        "Layerless": ("does not derive from FeatureAttack", "derive it from FeatureAttack"),
    },
    ("attack", "access"): {
        "Liar": ("'ScoresView' object has no attribute 'logits'", "view.scores(x)"),
        "Climber": ("does not require grad", "declare the access"),
        "Trainer": ("weights", "train a copy"),
        "Thief": ("no query", "view.logits"),
    },
    ("attack", "shapes"): {"Floating": ("float32", "uint8")},
    ("attack", "determinism"): {"Unseeded": ("two priors", "context.generator")},
    ("attack", "inputs"): {"Eraser": ("public images", "copy")},
    ("attack", "prior"): {"Shrugger": ("without 'mean'", "strict")},
    ("attack", "resume"): {"Momentary": ("after an interruption", "`state`")},
    ("attack", "decreasing_losses"): {"Riser": ("'error'", "descend: loss")},
    ("attack", "one_class"): {"Pairwise": ("there is but one label", "PrivbenchError")},
    ("attack", "support"): {"Narrow": ("48 x 48 pixels are not attacked", "require(protocol)")},
    ("attack", "record"): {"Unfiled": ("ValidationError", "correct it")},
    ("evaluator", "registered"): {},
    ("evaluator", "described"): {},
    ("evaluator", "key"): {"Consulter": ("the stage scores reads", "hash_file")},
    ("evaluator", "fields"): {},
    ("evaluator", "configuration"): {},
    ("evaluator", "definitions"): {
        "Copycat": ("mse of Copycat is also one of mse", "rename"),
        "Needy": ("Confessions", "name kinds"),
    },
    ("evaluator", "scores"): {
        "Excessive": ("2.0", "range"),
        "Misnamed": ("other", "exactly"),
    },
    ("evaluator", "determinism"): {"Dicey": ("two scores", "seed")},
    ("evaluator", "inputs"): {"Scribbler": ("pixels", "copy")},
    ("evaluator", "empty"): {"Divider": ("ZeroDivisionError", "reason=")},
    ("evaluator", "one_class"): {"Second": ("IndexError", "reason=")},
    ("evaluator", "record"): {"Presumptuous": ("KeyError", "reason")},
    ("dataset", "registered"): {},
    ("dataset", "described"): {},
    ("dataset", "key"): {"Elsewhere": ("neither in the data folder", "hash_file")},
    ("dataset", "fields"): {},
    ("dataset", "configuration"): {},
    ("dataset", "protocol"): {
        "Netless": ("'nothing'", "list networks"),
        "Oversized": ("does not accept its images", "resize"),
    },
    ("dataset", "missing_data"): {
        "Silent": ("FileNotFoundError", "MissingDataError"),
        "Unchecked": ("check", "name what is missing"),
        "Littering": ("cache.bin", "prepare"),
    },
    ("dataset", "shapes"): {"Float": ("float32", "uint8"), "Gap": ("private_test", "both parts")},
    ("dataset", "validation"): {"Scarce": ("no label can spare", "reference")},
    ("dataset", "disjoint"): {"Leaky": ("private too", "split")},
    ("dataset", "determinism"): {"Shuffler": ("two loads", "fixed rule")},
    ("dataset", "inputs"): {"Sharer": ("keeps", "clone")},
    ("dataset", "record"): {"Fingerless": ("bytes", "correct it")},
    ("network", "registered"): {},
    ("network", "described"): {},
    ("network", "key"): {"Preloaded": ("the constructor reads", "hash_file")},
    ("network", "construction"): {"Unasked": ("pretrained", "correct it"), "Fussy": ("AssertionError", "which images")},
    ("network", "shapes"): {"Headless": ("head", "same stages")},
    ("network", "empty"): {"BatchDependent": ("batch", "running statistics")},
    ("network", "one_class"): {"Plural": ("ZeroDivisionError", "PrivbenchError")},
    ("network", "gradient"): {"Flat": ("no finite gradient", "detach")},
    ("network", "determinism"): {"Noisy": ("two answers", "training mode only")},
    ("network", "inputs"): {"Overwriter": ("input", "in-place")},
    ("network", "strict_loading"): {"Tolerant": ("missing", "load_state_dict")},
    ("network", "resume"): {"Counter": ("interruption", "register_buffer")},
    ("network", "record"): {"Picky": ("not in a run", "can store")},
    ("embedder", "registered"): {},
    ("embedder", "described"): {},
    ("embedder", "key"): {"Stored": ("the constructor reads", "hash_file")},
    ("embedder", "vectors"): {"Long": ("length", "L2")},
    ("embedder", "gradient"): {"Cut": ("no finite gradient", "detach")},
    ("embedder", "inputs"): {"Dimmer": ("input", "in-place")},
    ("embedder", "faces"): {"Faceless": ("no faces", "face_box")},
    ("perceptual", "registered"): {},
    ("perceptual", "described"): {},
    ("perceptual", "key"): {"Saved": ("the constructor reads", "hash_file")},
    ("perceptual", "distances"): {"Apart": ("apart", "return 0")},
    ("perceptual", "gradient"): {"Blind": ("no finite gradient", "detach")},
    ("perceptual", "inputs"): {"Fader": ("input", "in-place")},
}
#: Checks that are the same functions for every kind; a faulty defense shows that they fail.
SHARED = ("registered", "described", "fields", "configuration")
CORRECT = {
    "defense": "Sound",
    "attack": "Still",
    "evaluator": "Bright",
    "dataset": "Plain",
    "network": "Tiny",
    "embedder": "Vectors",
    "perceptual": "Distance",
}
TRIALS = [(kind, check_name, name) for (kind, check_name), names in FAULTY.items() for name in names]


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """`faulty_components` beside a distribution that registers its classes, their names in lower case."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty_components.py").write_text((Path(__file__).parent / "faulty_components.py").read_text("utf-8"))
    facts = folder / "faulty_components-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-components\nVersion: 1.0\n")
    groups = {kind: {CORRECT[kind]} for kind in CORRECT}
    for kind, _, name in TRIALS:
        groups[kind].add(name)
    lines = []
    for kind, names in groups.items():
        lines.append(f"[privbench.{kind}s]")
        lines += [f"{name.lower()} = {module(name)}:{name}" for name in sorted(names)]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        refresh_registry()
        yield
    sys.modules.pop("faulty_components", None)
    refresh_registry()


def module(name: str) -> str:
    return "no_such_module" if name.startswith("nowhere") else "faulty_components"


def check_of(kind: str, name: str):
    return next(each for each in checks(kind) if each.name == name)


@pytest.mark.parametrize(("kind", "check_name", "name"), TRIALS)
def test_a_failed_check_names_the_problem_and_the_fix(kind: str, check_name: str, name: str) -> None:
    problem, fix = FAULTY[kind, check_name][name]
    with pytest.raises(ConformanceError) as caught:
        check_of(kind, check_name)(name.lower())
    before, _, after = str(caught.value).rpartition("; ")
    assert problem in before
    assert fix in after
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", CORRECT)
def test_a_correct_component_passes_every_check(kind: str, tmp_path: Path) -> None:
    found = check(kind, CORRECT[kind].lower(), data=tmp_path)
    assert {result.check: result.message for result in found if result.state != "passed"} == {}
    assert [result.check for result in found] == [each.name for each in checks(kind)]


def test_every_check_fails_for_some_component() -> None:
    assert set(FAULTY) == {(kind, each.name) for kind in registry.KINDS for each in checks(kind)}
    for (kind, name), classes in FAULTY.items():
        shared = name in SHARED and check_of(kind, name).function is check_of("defense", name).function
        assert classes or shared, f"no component fails {name} of {kind}"


def test_a_check_accepts_a_class() -> None:
    import faulty_components

    check_of("defense", "inputs")(faulty_components.Sound)
    with pytest.raises(ConformanceError, match="other logits"):
        check_of("defense", "strict_loading")(faulty_components.Forgetful)
    with pytest.raises(ConformanceError, match=r"registered under no name.*entry-points"):
        check_of("defense", "registered")(faulty_components.Unregistered)


def test_a_component_that_does_not_load_fails_only_the_first_check() -> None:
    first, *rest = check("defense", "nowhere")
    assert (first.check, first.state) == ("registered", "failed")
    assert {result.state for result in rest} == {"skipped"}


def test_an_unknown_name_is_not_a_failed_check() -> None:
    with pytest.raises(UnknownComponentError, match="did you mean 'bido_hsic'"):
        check("defense", "bido_hsik")


def test_a_check_without_data_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(unittest.SkipTest, match="MNIST"):
        check_of("dataset", "shapes")("mnist", data=tmp_path)


def test_settings_reach_the_component() -> None:
    check_of("defense", "inputs")("sound", settings={"weight": 0.5})
    with pytest.raises(ConformanceError, match=r"defense\.weight"):
        check_of("defense", "inputs")("sound", settings={"weight": -1})
    assert issubclass(ConformanceError, PrivbenchError)


def test_published_plugins_can_import_the_former_name() -> None:
    from privbench.benchmark.testing import laws

    assert laws is checks
