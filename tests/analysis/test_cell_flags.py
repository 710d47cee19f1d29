"""Flags of one cell: each is raised in its case and not in a similar sound case."""

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
from privbench.benchmark.analysis import cell_flags as rules
from privbench.benchmark.analysis.cell_flags import Lineage, cell_flags, has_decreased
from privbench.benchmark.analysis.flags import EXPLANATIONS
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.pipeline.write_record import lineage

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
GOOD = {"network": "scnn", "test_accuracy": 0.99, "n": 100, "pretrained": False}
SOUND = {"accuracy": {"value": 0.9, "interval": [0.8, 0.95], "chance": 0.2}}
FALLING = {"attack": "identity", "attack *": "identity"}
HEALTHY = {"n": 64, "random_logits": 0, "random_decisions": 0, "zero_gradients": 0, "gradient_norm": 0.6}


def names(judge: dict, scores: dict, **more: object) -> list[str]:
    return [flag["name"] for flag in cell_flags(judge=judge, scores=scores, **more)]


def message(**facts: object) -> str:
    (flag,) = cell_flags(**({"scores": {}} | facts))
    return flag["message"]


def test_a_sound_record_has_no_flags() -> None:
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
    found = cell_flags(judge={"test_accuracy": 0.1019, "n": 10000}, scores=SOUND)
    assert [flag["name"] for flag in found] == ["weak_judge"]
    assert "10.2% of 10000" in found[0]["message"]
    assert names({"test_accuracy": rules.MIN_JUDGE_ACCURACY, "n": 5}, SOUND) == []


def test_a_target_at_chance_is_flagged() -> None:
    assert names(GOOD, {"accuracy": {"value": 0.012, "interval": [0.006, 0.024], "chance": 0.01}}) == [
        "target_collapsed"
    ]


@pytest.mark.parametrize(("low", "flagged"), [(0.19, True), (0.2, True), (0.21, False)])
def test_a_target_has_collapsed_if_its_interval_reaches_chance(low: float, flagged: bool) -> None:
    accuracy = {"accuracy": {"value": 0.3, "interval": [low, 0.5], "chance": 0.2}}
    mcc_of = {"mcc": {"value": 0.3, "interval": [low, 0.5], "chance": 0.2}}
    for scores in (accuracy, mcc_of, accuracy | mcc_of):
        assert names({}, scores) == ["target_collapsed"] * flagged


@pytest.mark.parametrize("judge", ["first", "second"])
def test_a_judge_is_weak_below_four_in_five(judge: str) -> None:
    for accuracy, flagged in ((0.799, True), (0.8, False), (0.801, False)):
        facts = GOOD | {"test_accuracy": accuracy}
        assert names(facts if judge == "first" else GOOD | {"second_judge": facts}, {}) == ["weak_judge"] * flagged


def test_an_undefined_accuracy_is_not_flagged() -> None:
    assert names(GOOD, {"accuracy": {"value": None, "interval": None, "chance": None}}) == []


def mcc(value: float | None, low: float | None, reason: str | None = None) -> dict:
    interval = None if low is None else [low, 1.0]
    return {"mcc": {"value": value, "interval": interval, "chance": 0.0, "reason": reason}}


def test_an_mcc_interval_that_contains_zero_is_flagged() -> None:
    expected = "the target's MCC of 0.020 is not above chance, so there is little to leak"
    assert message(scores=SOUND | mcc(0.02, -0.01)) == expected
    assert names(GOOD, mcc(0.4, 0.3)) == []


def test_accuracy_at_chance_is_not_flagged_if_mcc_is_above_zero() -> None:
    rare = {"accuracy": {"value": 0.9, "interval": [0.88, 0.92], "chance": 0.9}}
    assert names(GOOD, rare) == ["target_collapsed"]
    assert names(GOOD, rare | mcc(0.3, 0.2)) == []


def test_a_constant_target_is_flagged() -> None:
    expected = "the target's MCC of 0.000 is not above chance, so there is little to leak"
    assert message(scores=SOUND | mcc(0.0, None)) == expected
    assert names(GOOD, SOUND | mcc(1.0, None)) == []


def test_a_target_whose_mcc_is_undefined_is_flagged() -> None:
    same = "the MCC is undefined: all labels are equal"
    expected = f"{same}, so there is no evidence that the target has learned anything"
    assert message(scores=SOUND | mcc(None, None, same)) == expected
    nothing = {"accuracy": {"value": None, "interval": None, "chance": None}}
    assert names(GOOD, nothing | mcc(None, None, "there are no test images")) == []


def test_a_failed_mcc_is_not_flagged() -> None:
    failed = {"mcc": {"value": None, "interval": None, "chance": None, "reason": "mcc failed: MemoryError"}}
    assert names(GOOD, SOUND | failed) == []


def noisy(count: int, level: float, noise: float, seed: int) -> list[float]:
    source = random.Random(seed)
    return [level + source.gauss(0, noise) for _ in range(count)]


def test_a_loss_that_decreases_at_any_pace_has_decreased() -> None:
    slowly = [5 - 0.04 * i for i in range(100)]
    at_once = [4.0, *noisy(99, 0.02, 0.01, 0)]
    upwards_first = [2.0, 3.0, 4.0, *(3.9 * 0.93**i for i in range(77))]
    below_zero = [-0.1 * i for i in range(50)]
    assert all(has_decreased(points) for points in (slowly, at_once, upwards_first, below_zero))


def test_a_loss_starts_at_the_larger_of_its_first_value_and_its_first_fifth() -> None:
    low_first = [0.5, *[3.0] * 7, *[1.0] * 32]
    assert has_decreased(low_first) is True
    assert has_decreased([0.5, *[3.0] * 7, *[1.0] * 24, *[0.5, 1.5] * 4]) is True, "the first fifth alone"
    assert has_decreased([4.0, *[1.0] * 39]) is True
    assert has_decreased([0.5, *[1.0] * 39]) is False


def test_a_decrease_exceeds_two_deviations_and_a_hundredth_of_the_start() -> None:
    # The last fifth has mean 1 and standard deviation 0.1.
    def falling_from(start: float, tail: tuple[float, float] = (0.9, 1.1)) -> bool | None:
        return has_decreased([*[start] * 32, *tail * 4])

    assert [falling_from(1.19), falling_from(1.21)] == [False, True]
    # Without a deviation a hundredth decides: 100 to 99 is exactly that.
    assert [falling_from(100.0, (99.0, 99.0)), falling_from(100.0, (98.9, 98.9))] == [False, True]
    assert falling_from(-98.9, (-100.0, -100.0)) is True
    assert falling_from(-99.1, (-100.0, -100.0)) is False
    outlier = [*[1.0] * 32, *[1.0] * 7, 0.2]
    assert has_decreased(outlier) is False, "one low point at the end is noise"


def test_a_loss_that_stays_or_rises_has_not_decreased() -> None:
    assert has_decreased([1.6094] * 100) is False
    assert has_decreased([1.6094379425, *[1.6094379] * 99]) is False  # rounding of sums in another order
    assert has_decreased([0.0] * 40) is False
    assert has_decreased([0.1 * i for i in range(40)]) is False
    assert has_decreased([4.0, *(4.0 + i for i in range(40))]) is False


@pytest.mark.parametrize("count", [30, 80, 101])
def test_noise_alone_rarely_counts_as_a_decrease(count: int) -> None:
    taken = sum(bool(has_decreased(noisy(count, 2.0, 0.3, seed))) for seed in range(300))
    assert taken <= 30


def test_a_missing_number_is_no_decrease_and_few_points_give_no_verdict() -> None:
    falls = [10.0 * 0.9**i for i in range(40)]
    assert has_decreased(falls) is True
    for index in (0, 20, 39):
        assert has_decreased([*falls[:index], None, *falls[index + 1 :]]) is False
    assert message(curves=curves([1e308] * 40), decreasing_losses=FALLING).startswith(
        "identity of loop 'attack' starts at not a number"
    )
    assert has_decreased([3.0] * (rules.MIN_CURVE_POINTS - 1)) is None
    assert has_decreased([3.0] * rules.MIN_CURVE_POINTS) is False
    assert has_decreased([]) is None


def curves(values: list[float | None], loop: str = "attack", stage: str = "evidence", series: str = "identity") -> dict:
    return {stage: {loop: {series: [[i, value] for i, value in enumerate(values)]}}}


def test_only_losses_that_the_attack_minimises_must_decrease() -> None:
    flat = [2.0] * 40
    assert message(curves=curves(flat, "attack 1"), decreasing_losses=FALLING) == (
        "identity of loop 'attack 1' starts at 2 and ends at 2: no decrease beyond its spread, so the attack did not "
        "work"
    )
    assert "ends at not a number" in message(curves=curves([2.0] * 39 + [None]), decreasing_losses=FALLING)
    for other in (curves(flat, "gan"), curves(flat, stage="target"), curves(flat, series="prior"), curves(flat[:20])):
        assert cell_flags(scores={}, curves=other, decreasing_losses=FALLING) == []
    assert cell_flags(scores={}, curves=curves(flat), decreasing_losses={}) == []


def test_a_flat_curve_of_the_prior_is_flagged_as_one_of_the_evidence() -> None:
    flat, falling = [2.0] * 40, [2.0 * 0.9**i for i in range(40)]
    for stage in ("prior", "evidence"):
        assert names({}, {}, curves=curves(flat, stage=stage), decreasing_losses=FALLING) == [
            "attack_loss_did_not_fall"
        ]
        assert names({}, {}, curves=curves(falling, stage=stage), decreasing_losses=FALLING) == []
    both = curves(falling, stage="evidence") | curves(flat, stage="prior")
    assert names({}, {}, curves=both, decreasing_losses=FALLING) == ["attack_loss_did_not_fall"]


def test_one_loop_that_does_not_decrease_is_enough() -> None:
    both = curves([2.0] * 40, "attack 1")
    both["evidence"] |= curves([2.0 * 0.9**i for i in range(40)], "attack 0")["evidence"]
    assert "attack 0" not in message(curves=both, decreasing_losses=FALLING)


def test_flags_set_by_evaluators_name_their_scores() -> None:
    low = {"fid_rank_deficient": "25 images in 512 features"}
    scores = {"fid_judge": {"flags": low}, "fid_vmi": {"flags": low}, "mse": {"flags": {}}, "ssim": {}}
    (flag,) = cell_flags(scores=scores)
    assert flag["name"] == "fid_rank_deficient"
    assert flag["message"] == "fid_judge: 25 images in 512 features; fid_vmi: 25 images in 512 features"


def test_a_target_with_random_output_is_flagged() -> None:
    expected = "queried twice, the target returns different logits on 60 of 64 private test images, the decision on 2"
    assert message(probe=HEALTHY | {"random_logits": 60, "random_decisions": 2}) == expected
    assert cell_flags(scores={}, probe={"n": 0}) == cell_flags(scores={}, probe=None) == []


def test_random_logits_are_flagged_even_if_no_decision_changes() -> None:
    assert "the decision on 0" in message(probe=HEALTHY | {"random_logits": 1, "random_decisions": 0})
    without = {key: value for key, value in HEALTHY.items() if key != "random_decisions"}
    assert message(probe=without | {"random_logits": 1}).endswith("on 1 of 64 private test images")
    assert cell_flags(scores={}, probe=HEALTHY) == []


def test_a_target_without_gradients_is_flagged() -> None:
    assert message(probe=HEALTHY | {"zero_gradients": 64, "gradient_norm": 0.0}) == (
        "the loss has no gradient with respect to the input on 64 of 64 private test images (median norm 0)"
    )
    failed = message(probe=HEALTHY | {"zero_gradients": 64, "gradient_failed": "round has none"})
    assert failed == "the gradient of the loss with respect to the input cannot be computed: round has none"
    assert cell_flags(scores={}, probe=HEALTHY | {"zero_gradients": 6}) == []
    assert names({}, {}, probe=HEALTHY | {"zero_gradients": 7}) == ["zero_input_gradient"]


def test_the_published_target_and_judge_on_cifar10_share_their_lineage() -> None:
    pair = {
        pretrained: (lineage("vgg16_bn", pretrained=pretrained), lineage("vgg19_bn", pretrained=pretrained))
        for pretrained in (True, False)
    }
    target, judge = pair[True]
    assert message(target=target, judges=[judge]) == (
        "target vgg16_bn and judge vgg19_bn share the family of architectures (vgg) and "
        "the images behind their initial weights (ImageNet)"
    )
    target, judge = pair[False]
    expected = "target vgg16_bn and judge vgg19_bn share the family of architectures (vgg)"
    assert message(target=target, judges=[judge]) == expected


def test_the_message_names_the_second_judge() -> None:
    target, other = lineage("vgg16_bn", pretrained=True), lineage("facenet", pretrained=True)
    shared = "share the images behind their initial weights (ImageNet)"
    found = message(target=target, judges=[other, lineage("resnet50", pretrained=True)])
    assert found == f"target vgg16_bn and second judge resnet50 {shared}"


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_no_second_judge_shares_its_lineage_with_the_target_or_the_judge(name: str) -> None:
    protocol = registry.load("dataset", name)().protocol
    if protocol.second_judge_network is None:
        return
    networks = {"target": protocol.target_network, "judge": protocol.judge_network}
    second = lineage(protocol.second_judge_network, pretrained=protocol.starts_from_published("second_judge"))
    for role, network in networks.items():
        other = lineage(network, pretrained=protocol.starts_from_published(role))
        assert cell_flags(scores={}, target=other, judges=[second]) == []


def test_lineages_that_differ_or_are_unknown_are_not_flagged() -> None:
    target = lineage("vgg16_bn", pretrained=True)
    assert cell_flags(scores={}, target=target, judges=[lineage("facenet", pretrained=True)]) == []
    assert cell_flags(scores={}, target=target, judges=[lineage("resnet34", pretrained=False)]) == []
    assert "ImageNet" in message(target=target, judges=[lineage("resnet34", pretrained=True)])
    assert cell_flags(scores={}, target=target) == cell_flags(scores={}, judges=[target]) == []
    assert cell_flags(scores={}, target=Lineage("theirs"), judges=[Lineage("ours")]) == []
    assert message(target=Lineage("theirs"), judges=[Lineage("theirs")]).endswith("share the architecture")


@pytest.mark.parametrize("name", registry.names("network"))
def test_every_network_declares_its_lineage(name: str) -> None:
    network = registry.load("network", name)
    assert isinstance(network.pretraining, str)
    assert network.family, f"{name} declares no family, so judges of its family are not flagged"
    table = [line for line in PAGE.splitlines() if line.startswith("| ") and f"`{name}`" in line]
    assert any(f"| {network.family}" in line and (network.pretraining or "none") in line for line in table)


def test_judges_that_disagree_are_flagged() -> None:
    score = {"judge_agreement": {"value": 0.49, "n": 200, "interval": [0.4, 0.6]}}
    assert message(scores=score) == "two judges assign the same class to 49.0% of 200 reconstructions"
    assert cell_flags(scores={"judge_agreement": {"value": 0.5, "n": 200}}) == []
    assert cell_flags(scores={"judge_agreement": {"value": None, "reason": "no second judge"}}) == []


def test_judges_that_accept_negatives_are_flagged() -> None:
    def rate(value: float | None, low: float | None) -> dict:
        return {"fpr_both": {"value": value, "n": 90, "interval": None if low is None else [low, 1.0]}}

    expected = "both judges classify 40.0% of 90 calibrated negatives as the label they were pushed towards"
    assert message(scores=rate(0.4, 0.3)) == expected
    assert (
        cell_flags(scores=rate(0.4, 0.1))
        == cell_flags(scores=rate(0.1, None))
        == cell_flags(scores=rate(None, None))
        == []
    )
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
def test_arbitrary_input_raises_nothing(scores: dict, judge: dict, found: dict, probe: dict) -> None:
    for flag in cell_flags(scores=scores, judge=judge, curves=found, decreasing_losses=FALLING, probe=probe):
        assert set(flag) == {"name", "message"}
        assert all(isinstance(text, str) and text for text in flag.values())


def test_every_flag_is_explained_in_the_code_and_in_the_documentation() -> None:
    found = {name for name in EXPLANATIONS if callable(getattr(rules, name, None))}
    assert set(EXPLANATIONS) - found == {"fid_rank_deficient", "placebo_above_chance", "weaker_access_wins"}
    assert re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE) == list(EXPLANATIONS)
    for name, value in vars(rules).items():
        assert not name.startswith(("MIN_", "MAX_")) or f"{value}" in PAGE, name
    assert all(text.endswith(".") and "\n" not in text for text in EXPLANATIONS.values())


def test_flags_do_not_import_torch() -> None:
    code = "import privbench.benchmark.analysis.cell_flags, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_committed_records_have_the_attack_losses_and_a_flag_if_one_did_not_decrease() -> None:
    for record in load_records(ROOT / "results"):
        decreasing_losses = registry.load("attack", record.cell.attack.name).decreasing_losses
        found = record.model_dump(mode="json")["curves"]
        loops = {name: loop for stage in ("prior", "evidence") for name, loop in found.get(stage, {}).items()}
        for pattern, series in decreasing_losses.items():
            assert any(series in loop for name, loop in loops.items() if fnmatchcase(name, pattern)), pattern
        is_flagged = "attack_loss_did_not_fall" in [flag.name for flag in record.flags]
        assert (rules.attack_loss_did_not_fall(found, decreasing_losses) is not None) == is_flagged


def test_a_weak_second_judge_is_named():
    strong, weak = {"test_accuracy": 0.99, "n": 300}, {"test_accuracy": 0.5, "n": 300}
    assert rules.weak_judge(strong | {"second_judge": strong}) is None
    assert "second judge is correct on 50.0%" in rules.weak_judge(strong | {"second_judge": weak})
    assert "the judge is correct on 50.0%" in rules.weak_judge(weak | {"second_judge": strong})


def test_a_placebo_is_not_flagged_for_what_it_is_made_for() -> None:
    scores = {
        "accuracy": {"value": 0.21, "interval": [0.15, 0.27], "chance": 0.2, "n": 200},
        "judge_agreement": {"value": 0.3, "n": 200},
        "fpr_both": {"value": 0.4, "interval": [0.3, 0.5], "n": 100},
    }
    loss = {"evidence": {"attack": {"identity": [[step, 2.0] for step in range(40)]}}}
    facts = {"scores": scores, "curves": loss, "decreasing_losses": {"attack": "identity"}}
    names = {"target_collapsed", "attack_loss_did_not_fall", "judges_disagree", "high_false_positive_rate"}
    assert {flag["name"] for flag in cell_flags(**facts)} == names
    assert [flag["name"] for flag in cell_flags(**facts, control=True)] == ["high_false_positive_rate"]
