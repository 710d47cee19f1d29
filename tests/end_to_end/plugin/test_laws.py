"""Every law can be broken, and then says in a sentence what to change; components that keep them pass."""

import sys
import unittest
from pathlib import Path

import pytest
from privbench.benchmark import registry
from privbench.benchmark.errors import PrivbenchError, UnknownComponentError
from privbench.benchmark.testing.check import ConformanceError
from privbench.benchmark.testing.checks import check, checks

#: (kind, law) -> class in `broken_components` -> what the message says, the last part being what to change.
BROKEN = {
    ("defense", "registered"): {
        "nowhere": ("does not import", "install it again"),
        "NOT_A_DEFENSE": ("subclass of Defense", "entry-points"),
    },
    ("defense", "described"): {
        "Undescribed": ("no docstring", "add one"),
        "Unfinished": ("as in", "full stop"),
        "Unversioned": ("version is 0", "integer from 1"),
    },
    ("defense", "fields"): {
        "Nameless": ("steps", "setting(default, "),
        "Unbounded": ("margin", "ge, gt, le or lt"),
        "Stranger": ("'training'", "target"),
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
    ("attack", "record"): {"Unfiled": ("ValidationError", "correct it")},
    ("evaluator", "registered"): {},
    ("evaluator", "described"): {},
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
    ("dataset", "fields"): {},
    ("dataset", "configuration"): {},
    ("dataset", "protocol"): {
        "Netless": ("'nothing'", "list networks"),
        "Oversized": ("does not take its images", "resize"),
    },
    ("dataset", "missing_data"): {
        "Silent": ("FileNotFoundError", "MissingDataError"),
        "Unchecked": ("check", "name what is missing"),
        "Littering": ("cache.bin", "prepare"),
    },
    ("dataset", "shapes"): {"Float": ("float32", "uint8"), "Gap": ("private_test", "both parts")},
    ("dataset", "disjoint"): {"Leaky": ("private too", "split")},
    ("dataset", "determinism"): {"Shuffler": ("two ways", "fixed rule")},
    ("dataset", "inputs"): {"Sharer": ("keeps", "clone")},
    ("dataset", "record"): {"Fingerless": ("bytes", "correct it")},
    ("network", "registered"): {},
    ("network", "described"): {},
    ("network", "construction"): {"Unasked": ("pretrained", "correct it"), "Fussy": ("AssertionError", "which images")},
    ("network", "shapes"): {"Headless": ("head", "same stages")},
    ("network", "empty"): {"Sociable": ("company", "running statistics")},
    ("network", "one_class"): {"Plural": ("ZeroDivisionError", "PrivbenchError")},
    ("network", "gradient"): {"Flat": ("no finite gradient", "detach")},
    ("network", "determinism"): {"Noisy": ("two answers", "training mode only")},
    ("network", "inputs"): {"Overwriter": ("input", "in-place")},
    ("network", "strict_loading"): {"Tolerant": ("missing", "load_state_dict")},
    ("network", "resume"): {"Counter": ("interruption", "register_buffer")},
    ("network", "record"): {"Picky": ("not in the harness", "harness")},
    ("embedder", "registered"): {},
    ("embedder", "described"): {},
    ("embedder", "vectors"): {"Long": ("length", "L2")},
    ("embedder", "gradient"): {"Cut": ("no gradient", "detach")},
    ("embedder", "inputs"): {"Dimmer": ("input", "in-place")},
    ("embedder", "faces"): {"Faceless": ("no faces", "face_box")},
    ("perceptual", "registered"): {},
    ("perceptual", "described"): {},
    ("perceptual", "distances"): {"Apart": ("apart", "give 0")},
    ("perceptual", "gradient"): {"Blind": ("no gradient", "detach")},
    ("perceptual", "inputs"): {"Fader": ("input", "in-place")},
}
#: Those whose laws are the same functions as a defense's, which are broken there.
SHARED = ("registered", "described", "fields", "configuration")
SOUND = {
    "defense": "Sound",
    "attack": "Still",
    "evaluator": "Bright",
    "dataset": "Plain",
    "network": "Tiny",
    "embedder": "Vectors",
    "perceptual": "Distance",
}
TRIALS = [(kind, law, name) for (kind, law), names in BROKEN.items() for name in names]


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """`broken_components` beside a distribution that registers its classes, their names in lower case."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "broken_components.py").write_text((Path(__file__).parent / "broken_components.py").read_text("utf-8"))
    facts = folder / "broken_components-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-components\nVersion: 1.0\n")
    groups = {kind: {SOUND[kind]} for kind in SOUND}
    for kind, _, name in TRIALS:
        groups[kind].add(name)
    lines = []
    for kind, names in groups.items():
        lines.append(f"[privbench.{kind}s]")
        lines += [f"{name.lower()} = {module(name)}:{name}" for name in sorted(names)]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        registry.refresh()
        yield
    sys.modules.pop("broken_components", None)
    registry.refresh()


def module(name: str) -> str:
    return "no_such_module" if name.startswith("nowhere") else "broken_components"


def law_of(kind: str, name: str):
    return next(law for law in checks(kind) if law.name == name)


@pytest.mark.parametrize(("kind", "law", "name"), TRIALS)
def test_a_broken_law_says_what_to_change(kind: str, law: str, name: str) -> None:
    happened, change = BROKEN[kind, law][name]
    with pytest.raises(ConformanceError) as caught:
        law_of(kind, law)(name.lower())
    before, _, after = str(caught.value).rpartition("; ")
    assert happened in before
    assert change in after
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_component_keeps_every_law(kind: str, tmp_path: Path) -> None:
    found = check(kind, SOUND[kind].lower(), data=tmp_path)
    assert {verdict.law: verdict.message for verdict in found if verdict.state != "holds"} == {}
    assert [verdict.law for verdict in found] == [law.name for law in checks(kind)]


def test_every_law_is_broken_by_something() -> None:
    assert set(BROKEN) == {(kind, law.name) for kind in registry.KINDS for law in checks(kind)}
    for (kind, law), names in BROKEN.items():
        shared = law in SHARED and law_of(kind, law).hold is law_of("defense", law).hold
        assert names or shared, f"nothing breaks {law} of {kind}"


def test_a_class_stands_for_its_name() -> None:
    import broken_components

    law_of("defense", "inputs")(broken_components.Sound)
    with pytest.raises(ConformanceError, match="other logits"):
        law_of("defense", "strict_loading")(broken_components.Forgetful)
    with pytest.raises(ConformanceError, match=r"registered under no name.*entry-points"):
        law_of("defense", "registered")(broken_components.Unregistered)


def test_a_component_that_does_not_load_breaks_one_law_alone() -> None:
    first, *rest = check("defense", "nowhere")
    assert (first.law, first.state) == ("registered", "broken")
    assert {verdict.state for verdict in rest} == {"not tried"}


def test_an_unknown_name_is_no_broken_law() -> None:
    with pytest.raises(UnknownComponentError, match="did you mean 'bido_hsic'"):
        check("defense", "bido_hsik")


def test_what_cannot_be_tried_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(unittest.SkipTest, match="MNIST"):
        law_of("dataset", "shapes")("mnist", data=tmp_path)


def test_settings_reach_the_component() -> None:
    law_of("defense", "inputs")("sound", settings={"weight": 0.5})
    with pytest.raises(ConformanceError, match=r"defense\.weight"):
        law_of("defense", "inputs")("sound", settings={"weight": -1})
    assert issubclass(ConformanceError, PrivbenchError)
