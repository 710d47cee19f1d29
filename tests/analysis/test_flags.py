"""Flags name what casts doubt on a record: each fires on its case and not on the healthy neighbour."""

import random
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark import registry
from privbench.benchmark.analysis import flags
from privbench.benchmark.analysis.flags import EXPLANATIONS, Lineage, has_decreased, of_cell
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.pipeline.write_record import lineage

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
GOOD = {"network": "scnn", "test_accuracy": 0.99, "n": 100, "pretrained": False}
SOUND = {"accuracy": {"value": 0.9, "interval": [0.8, 0.95], "chance": 0.2}}
FALLING = {"attack": "identity", "attack *": "identity"}
HEALTHY = {"n": 64, "random_logits": 0, "random_decisions": 0, "zero_gradients": 0, "gradient_norm": 0.6}


def names(judge: dict, scores: dict, **more: object) -> list[str]:
    return [flag["name"] for flag in of_cell(judge=judge, scores=scores, **more)]


def message(**facts: object) -> str:
    (flag,) = of_cell(**({"scores": {}} | facts))
    return flag["message"]


def test_a_sound_record_has_none() -> None:
    curves = {"evidence": {"attack": {"identity": [[i, 1 / (1 + i)] for i in range(40)]}}}
    target, judge = Lineage("vgg16_bn", "vgg", "ImageNet"), Lineage("facenet", "inception_resnet", "VGGFace2")
    scores = SOUND | {
        "judge_agreement": {"value": 0.8, "n": 50, "interval": [0.7, 0.9]},
        "fpr_both": {"value": 0.02, "n": 50, "interval": [0.0, 0.1]},
        "fid_judge": {"value": 40.0, "flags": {}},
    }
    facts = {"curves": curves, "decreasing_losses": FALLING, "probe": HEALTHY, "target": target, "judges": [judge]}
    assert names(GOOD, scores, **facts) == []
    assert names({}, {}) == []


def test_a_judge_at_chance_is_flagged() -> None:
    found = of_cell(judge={"test_accuracy": 0.1019, "n": 10000}, scores=SOUND)
    assert [flag["name"] for flag in found] == ["weak_judge"]
    assert "10.2% of 10000" in found[0]["message"]
    assert names({"test_accuracy": flags.WEAK_JUDGE, "n": 5}, SOUND) == []


def test_a_target_at_chance_is_flagged() -> None:
    assert names(GOOD, {"accuracy": {"value": 0.012, "interval": [0.006, 0.024], "chance": 0.01}}) == [
        "target_collapsed"
    ]


def test_an_undefined_accuracy_is_not_compared() -> None:
    assert names(GOOD, {"accuracy": {"value": None, "interval": None, "chance": None}}) == []


def mcc(value: float | None, low: float | None, reason: str | None = None) -> dict:
    interval = None if low is None else [low, 1.0]
    return {"mcc": {"value": value, "interval": interval, "chance": 0.0, "reason": reason}}


def test_an_mcc_that_may_be_zero_is_flagged() -> None:
    expected = "the target's MCC of 0.020 is not above chance, so there is little to leak"
    assert message(scores=SOUND | mcc(0.02, -0.01)) == expected
    assert names(GOOD, mcc(0.4, 0.3)) == []


def test_accuracy_at_chance_is_no_collapse_where_mcc_is_above_zero() -> None:
    rare = {"accuracy": {"value": 0.9, "interval": [0.88, 0.92], "chance": 0.9}}
    assert names(GOOD, rare) == ["target_collapsed"]
    assert names(GOOD, rare | mcc(0.3, 0.2)) == []


def test_a_target_that_always_says_the_same_is_flagged() -> None:
    same = "the MCC is undefined: the target says one class throughout"
    expected = f"{same}, so nothing shows that the target has learned anything"
    assert message(scores=SOUND | mcc(None, None, same)) == expected
    nothing = {"accuracy": {"value": None, "interval": None, "chance": None}}
    assert names(GOOD, nothing | mcc(None, None, "there are no test images")) == []
    assert names(GOOD, SOUND | mcc(1.0, None)) == []


def test_an_mcc_that_failed_is_no_collapse() -> None:
    failed = {"mcc": {"value": None, "interval": None, "chance": None, "reason": "mcc failed: MemoryError"}}
    assert names(GOOD, SOUND | failed) == []


def noisy(count: int, level: float, noise: float, seed: int) -> list[float]:
    source = random.Random(seed)
    return [level + source.gauss(0, noise) for _ in range(count)]


def test_a_loss_that_falls_at_any_pace_fell() -> None:
    slowly = [5 - 0.04 * i for i in range(100)]
    at_once = [4.0, *noisy(99, 0.02, 0.01, 0)]
    upwards_first = [2.0, 3.0, 4.0, *(3.9 * 0.93**i for i in range(77))]
    below_zero = [-0.1 * i for i in range(50)]
    assert all(has_decreased(points) for points in (slowly, at_once, upwards_first, below_zero))


def test_a_loss_that_stays_or_rises_did_not_fall() -> None:
    assert has_decreased([1.6094] * 100) is False
    assert has_decreased([1.6094379425, *[1.6094379] * 99]) is False  # what sums in another order leave
    assert has_decreased([0.0] * 40) is False
    assert has_decreased([0.1 * i for i in range(40)]) is False
    assert has_decreased([4.0, *(4.0 + i for i in range(40))]) is False


@pytest.mark.parametrize("count", [30, 80, 101])
def test_noise_alone_is_rarely_taken_for_a_fall(count: int) -> None:
    taken = sum(bool(has_decreased(noisy(count, 2.0, 0.3, seed))) for seed in range(300))
    assert taken <= 30


def test_a_number_that_is_missing_is_no_fall_and_few_points_say_nothing() -> None:
    falls = [10.0 * 0.9**i for i in range(40)]
    assert has_decreased(falls) is True
    for place in (0, 20, 39):
        assert has_decreased([*falls[:place], None, *falls[place + 1 :]]) is False
    assert message(curves=curves([1e308] * 40), decreasing_losses=FALLING).startswith(
        "identity of loop 'attack' begins at no"
    )
    assert has_decreased([3.0] * (flags.CURVE_POINTS - 1)) is None
    assert has_decreased([]) is None


def curves(values: list[float | None], loop: str = "attack", stage: str = "evidence", series: str = "identity") -> dict:
    return {stage: {loop: {series: [[i, value] for i, value in enumerate(values)]}}}


def test_only_what_the_attack_minimises_must_fall() -> None:
    flat = [2.0] * 40
    expected = (
        "identity of loop 'attack 1' begins at 2 and ends at 2: no fall beyond its spread, so the attack did not work"
    )
    assert message(curves=curves(flat, "attack 1"), decreasing_losses=FALLING) == expected
    assert "ends at no number" in message(curves=curves([2.0] * 39 + [None]), decreasing_losses=FALLING)
    for other in (curves(flat, "gan"), curves(flat, stage="target"), curves(flat, series="prior"), curves(flat[:20])):
        assert of_cell(scores={}, curves=other, decreasing_losses=FALLING) == []
    assert of_cell(scores={}, curves=curves(flat), decreasing_losses={}) == []


def test_one_loop_of_several_is_enough() -> None:
    both = curves([2.0] * 40, "attack 1")
    both["evidence"] |= curves([2.0 * 0.9**i for i in range(40)], "attack 0")["evidence"]
    assert "attack 0" not in message(curves=both, decreasing_losses=FALLING)


def test_flags_of_evaluators_name_their_scores() -> None:
    low = {"fid_rank_deficient": "25 images in 512 features"}
    scores = {"fid_judge": {"flags": low}, "fid_vmi": {"flags": low}, "mse": {"flags": {}}, "ssim": {}}
    (flag,) = of_cell(scores=scores)
    assert flag["name"] == "fid_rank_deficient"
    assert flag["message"] == "fid_judge: 25 images in 512 features; fid_vmi: 25 images in 512 features"


def test_a_random_target_is_flagged() -> None:
    expected = "asked twice, the target gives other logits on 60 of 64 private test images, the decision on 2"
    assert message(probe=HEALTHY | {"random_logits": 60, "random_decisions": 2}) == expected
    assert of_cell(scores={}, probe={"n": 0}) == of_cell(scores={}, probe=None) == []


def test_a_target_without_gradients_is_flagged() -> None:
    assert message(probe=HEALTHY | {"zero_gradients": 64, "gradient_norm": 0.0}) == (
        "the loss has no gradient with respect to the input on 64 of 64 private test images (median norm 0)"
    )
    failed = message(probe=HEALTHY | {"zero_gradients": 64, "gradient_failed": "round has none"})
    assert failed == "the gradient of the loss with respect to the input cannot be computed: round has none"
    assert of_cell(scores={}, probe=HEALTHY | {"zero_gradients": 6}) == []
    assert names({}, {}, probe=HEALTHY | {"zero_gradients": 7}) == ["zero_input_gradient"]


def test_the_published_pair_on_cifar10_shares_its_lineage() -> None:
    pair = {
        pretrained: (lineage("vgg16_bn", pretrained=pretrained), lineage("vgg19_bn", pretrained=pretrained))
        for pretrained in (True, False)
    }
    target, judge = pair[True]
    assert message(target=target, judges=[judge]) == (
        "target vgg16_bn and judge vgg19_bn are both of the family vgg; "
        "target vgg16_bn and judge vgg19_bn both start from weights trained on ImageNet"
    )
    target, judge = pair[False]
    assert message(target=target, judges=[judge]) == "target vgg16_bn and judge vgg19_bn are both of the family vgg"


def test_lineages_that_differ_or_are_unknown_are_not_flagged() -> None:
    target = lineage("vgg16_bn", pretrained=True)
    assert of_cell(scores={}, target=target, judges=[lineage("facenet", pretrained=True)]) == []
    assert of_cell(scores={}, target=target, judges=[lineage("resnet34", pretrained=False)]) == []
    assert "ImageNet" in message(target=target, judges=[lineage("resnet34", pretrained=True)])
    assert of_cell(scores={}, target=target) == of_cell(scores={}, judges=[target]) == []
    assert of_cell(scores={}, target=Lineage("theirs"), judges=[Lineage("ours")]) == []
    assert message(target=Lineage("theirs"), judges=[Lineage("theirs")]).endswith("are one architecture")


@pytest.mark.parametrize("name", registry.names("network"))
def test_every_network_says_where_it_comes_from(name: str) -> None:
    network = registry.load("network", name)
    assert isinstance(network.pretraining, str)
    assert network.family, f"{name} names no family, so judges that resemble it are not found out"
    table = [line for line in PAGE.splitlines() if line.startswith("| ") and f"`{name}`" in line]
    assert any(f"| {network.family}" in line and (network.pretraining or "none") in line for line in table)


def test_judges_that_disagree_are_flagged() -> None:
    score = {"judge_agreement": {"value": 0.49, "n": 200, "interval": [0.4, 0.6]}}
    assert message(scores=score) == "two judges name the same class for 49.0% of 200 reconstructions"
    assert of_cell(scores={"judge_agreement": {"value": 0.5, "n": 200}}) == []
    assert of_cell(scores={"judge_agreement": {"value": None, "reason": "no second judge"}}) == []


def test_judges_that_take_negatives_for_the_label_are_flagged() -> None:
    def rate(value: float | None, low: float | None) -> dict:
        return {"fpr_both": {"value": value, "n": 90, "interval": None if low is None else [low, 1.0]}}

    expected = "both judges take 40.0% of 90 calibrated negatives for the label they were pushed towards"
    assert message(scores=rate(0.4, 0.3)) == expected
    assert of_cell(scores=rate(0.4, 0.1)) == of_cell(scores=rate(0.1, None)) == of_cell(scores=rate(None, None)) == []
    assert names({}, rate(0.2, None)) == ["high_false_positive_rate"]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def some(*keys: str) -> st.SearchStrategy:
    return st.dictionaries(st.sampled_from(keys), ODD, max_size=len(keys))


@settings(max_examples=60, deadline=None)
@given(
    scores=st.dictionaries(
        st.sampled_from(["accuracy", "mcc", "judge_agreement", "fpr_both", "fid_judge"]),
        ODD | some("value", "interval", "chance", "n", "reason", "flags"),
    ),
    judge=some("test_accuracy", "n", "network"),
    found=st.dictionaries(
        st.sampled_from(["prior", "evidence"]),
        ODD | st.fixed_dictionaries({"attack": ODD | st.fixed_dictionaries({"identity": st.lists(ODD, max_size=40)})}),
    ),
    probe=some("n", "random_logits", "random_decisions", "zero_gradients", "gradient_norm", "gradient_failed"),
)
def test_whatever_it_is_given_nothing_is_raised(scores: dict, judge: dict, found: dict, probe: dict) -> None:
    for flag in of_cell(scores=scores, judge=judge, curves=found, decreasing_losses=FALLING, probe=probe):
        assert set(flag) == {"name", "message"}
        assert all(isinstance(text, str) and text for text in flag.values())


def test_every_flag_is_explained_here_and_in_the_documentation() -> None:
    rules = {name for name in EXPLANATIONS if callable(getattr(flags, name, None))}
    assert set(EXPLANATIONS) - rules == {"fid_rank_deficient", "weaker_access_wins"}
    assert re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE) == list(EXPLANATIONS)
    for value in ("WEAK_JUDGE", "AGREEMENT", "FALSE_POSITIVES", "CURVE_POINTS", "LEAST_FALL", "ZERO_GRADIENTS"):
        assert f"{getattr(flags, value)}" in PAGE, value
    assert all(text.endswith(".") and "\n" not in text for text in EXPLANATIONS.values())


def test_reports_read_flags_without_torch() -> None:
    code = "import privbench.benchmark.analysis.flags, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_committed_records_have_what_must_fall_and_the_flag_where_it_did_not() -> None:
    for record in load_records(ROOT / "results"):
        decreasing_losses = registry.load("attack", record.cell.attack.name).decreasing_losses
        found = record.model_dump(mode="json")["curves"]
        loops = {name: loop for stage in ("prior", "evidence") for name, loop in found.get(stage, {}).items()}
        for pattern, series in decreasing_losses.items():
            assert any(series in loop for name, loop in loops.items() if fnmatchcase(name, pattern)), pattern
        is_flagged = "attack_loss_did_not_fall" in [flag.name for flag in record.flags]
        assert (flags.attack_loss_did_not_fall(found, decreasing_losses) is not None) == is_flagged


def test_a_weak_second_judge_is_named():
    strong, weak = {"test_accuracy": 0.99, "n": 300}, {"test_accuracy": 0.5, "n": 300}
    assert flags.weak_judge(strong | {"second": strong}) is None
    assert "second judge is right on 50.0%" in flags.weak_judge(strong | {"second": weak})
    assert "the judge is right on 50.0%" in flags.weak_judge(weak | {"second": strong})
