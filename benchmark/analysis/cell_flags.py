"""Flags of one cell: one rule for each flag.

A rule takes plain values, as in JSON, and returns a sentence with its figures, or `None`. A rule that lacks a value (of
an older artifact, or of a score that failed) finds nothing. `docs/flags.md` says what to do about each flag.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..records.record import Interval

#: Lowest test accuracy of a judge without a flag.
MIN_JUDGE_ACCURACY = 0.8
#: Lowest share of reconstructions that two judges assign to the same class without a flag.
MIN_JUDGE_AGREEMENT = 0.5
#: Highest share of calibrated negatives that both judges accept without a flag.
MAX_FALSE_POSITIVE_RATE = 0.1
#: Fewest points of a curve for a verdict: a smoke run has too few steps to show anything.
MIN_CURVE_POINTS = 30
#: Least decrease of an attack loss, as a share of its start.
MIN_RELATIVE_DECREASE = 0.01
#: Highest share of probed images without a gradient and without a flag.
MAX_ZERO_GRADIENTS = 0.1
#: Flags that say what a placebo is made for: it has learned no label, so an attack finds none.
_OF_A_CONTROL = ("target_collapsed", "attack_loss_did_not_fall", "judges_disagree")
_CURVE_STAGES = ("prior", "evidence")
#: Largest absolute loss that counts as a number: sums of larger ones overflow.
_MAX_LOSS = 1e100


@dataclass(frozen=True)
class Lineage:
    """Origin of a trained network.

    Args:
        network: name in the registry.
        family: architecture family, which networks of other depths or widths share; empty if unknown.
        pretraining: training data of the initial weights; empty if these were random.
    """

    network: str
    family: str = ""
    pretraining: str = ""


def cell_flags(
    *,
    scores: Mapping[str, Any],
    judge: Mapping[str, Any] | None = None,
    curves: Mapping[str, Any] | None = None,
    decreasing_losses: Mapping[str, str] | None = None,
    probe: Mapping[str, Any] | None = None,
    target: Lineage | None = None,
    judges: Sequence[Lineage] = (),
    control: bool = False,
) -> list[dict[str, str]]:
    """Find the flags of one cell.

    Args:
        scores: scores by name, as in `scores.json`.
        judge: facts from the judge's stage; empty or `None` if there was none.
        curves: curves by stage, loop and series.
        decreasing_losses: losses that the attack minimises (`Attack.decreasing_losses`).
        probe: result of probing the target for gradient masking; empty or `None` if the target was not probed.
        target: lineage of the target, if known.
        judges: lineages of the judges, in their order.
        control: whether the target is a placebo, which by construction is at chance and shows no class.

    Returns:
        Name and message of each flag, as JSON.
    """
    found = {
        "weak_judge": weak_judge(judge or {}),
        "target_collapsed": target_collapsed(scores),
        "attack_loss_did_not_fall": attack_loss_did_not_fall(curves or {}, decreasing_losses or {}),
        "random_output": random_output(probe or {}),
        "zero_input_gradient": zero_input_gradient(probe or {}),
        "shared_lineage": shared_lineage(target, judges),
        "judges_disagree": judges_disagree(scores),
        "high_false_positive_rate": high_false_positive_rate(scores),
    }
    by_name = {
        name: [message] for name, message in found.items() if message and not (control and name in _OF_A_CONTROL)
    }
    for name, message in _evaluator_flags(scores):
        by_name.setdefault(name, []).append(message)
    return [{"name": name, "message": "; ".join(messages)} for name, messages in by_name.items()]


def weak_judge(judge: Mapping[str, Any]) -> str | None:
    """Flag a judge with a test accuracy below 0.8."""
    found = []
    second = judge.get("second_judge")
    for name, facts in (("judge", judge), ("second judge", second if isinstance(second, Mapping) else {})):
        accuracy = _finite_number(facts.get("test_accuracy"))
        if accuracy is not None and accuracy < MIN_JUDGE_ACCURACY:
            found.append(f"the {name} is correct on {accuracy:.1%} of {facts.get('n')} test images")
    return f"{' and '.join(found)}, so its verdicts on reconstructions are unreliable" if found else None


def target_collapsed(scores: Mapping[str, Any]) -> str | None:
    """Flag a target that is not better than chance.

    If MCC has a value, it decides: a useful target may have an accuracy at chance if one class is frequent. Without an
    interval (a constant or a perfect target) its value does.
    """
    mcc, accuracy = _parse_score(scores, "mcc"), _parse_score(scores, "accuracy")
    if mcc.value is not None and mcc.chance is not None:
        low = mcc.interval[0] if mcc.interval else mcc.value
        message = f"the target's MCC of {mcc.value:.3f} is not above chance, so there is little to leak"
        return message if low <= mcc.chance else None
    if accuracy.interval and accuracy.chance is not None and accuracy.interval[0] <= accuracy.chance:
        return f"the target's accuracy of {accuracy.value:.1%} is not above chance, so there is little to leak"
    if mcc.value is None and mcc.chance is not None and mcc.reason and accuracy.value is not None:
        return f"{mcc.reason}, so there is no evidence that the target has learned anything"
    return None


def attack_loss_did_not_fall(curves: Mapping[str, Any], decreasing_losses: Mapping[str, str]) -> str | None:
    """Flag an attack whose loss has not decreased; see `has_decreased`."""
    found = []
    for stage in _CURVE_STAGES:
        loops = curves.get(stage)
        for loop, series in loops.items() if isinstance(loops, Mapping) else ():
            losses = dict.fromkeys(name for pattern, name in decreasing_losses.items() if fnmatchcase(loop, pattern))
            for name in losses:
                points = _curve_values(series, name)
                if has_decreased(points) is False:
                    start, end = _format_mean(points[:1]), _format_mean(points[-(len(points) // 5) :])
                    found.append(f"{name} of loop {loop!r} starts at {start} and ends at {end}")
    return f"{'; '.join(found)}: no decrease beyond its spread, so the attack did not work" if found else None


def has_decreased(points: Sequence[float | None]) -> bool | None:
    """Return whether a loss has decreased; `None` for fewer than 30 points.

    Let s be the larger of the first value and the mean of the first fifth (an attack may converge within its first
    points), and let e and d be the mean and the standard deviation of the last fifth. The loss has decreased if
    `s - e > max(2 d, 0.01 |s|)`. A loss with a point that is not a number has not decreased.
    """
    if len(points) < MIN_CURVE_POINTS:
        return None
    values = [value for value in points if value is not None]
    if len(values) < len(points):
        return False
    part = len(values) // 5
    start, tail = max(values[0], statistics.fmean(values[:part])), values[-part:]
    return start - statistics.fmean(tail) > max(2 * statistics.pstdev(tail), MIN_RELATIVE_DECREASE * abs(start))


def random_output(probe: Mapping[str, Any]) -> str | None:
    """Flag a target with different logits in two runs on the same images."""
    n, logits, decisions = (_finite_number(probe.get(name)) for name in ("n", "random_logits", "random_decisions"))
    if not n or not logits:
        return None
    changed = f", the decision on {decisions:.0f}" if decisions is not None else ""
    return f"queried twice, the target returns different logits on {logits:.0f} of {n:.0f} private test images{changed}"


def zero_input_gradient(probe: Mapping[str, Any]) -> str | None:
    """Flag a target with zero or non-finite gradients on more than a tenth of the probed images."""
    n, zeros, norm = (_finite_number(probe.get(name)) for name in ("n", "zero_gradients", "gradient_norm"))
    if not n or zeros is None or zeros <= MAX_ZERO_GRADIENTS * n:
        return None
    failed = probe.get("gradient_failed")
    if isinstance(failed, str) and failed:
        return f"the gradient of the loss with respect to the input cannot be computed: {failed}"
    median = f" (median norm {norm:.3g})" if norm is not None else ""
    return f"the loss has no gradient with respect to the input on {zeros:.0f} of {n:.0f} private test images{median}"


def shared_lineage(target: Lineage | None, judges: Sequence[Lineage]) -> str | None:
    """Flag a judge of the target's architecture family, or with initial weights trained on the same data."""
    found = []
    for role, judge in zip(("judge", "second judge"), judges, strict=False) if target else ():
        assert target is not None
        shared = []
        if target.network == judge.network:
            shared.append("the architecture")
        elif target.family and target.family == judge.family:
            shared.append(f"the family of architectures ({target.family})")
        if target.pretraining and target.pretraining == judge.pretraining:
            shared.append(f"the images behind their initial weights ({target.pretraining})")
        if shared:
            found.append(f"target {target.network} and {role} {judge.network} share {' and '.join(shared)}")
    return "; ".join(found) or None


def judges_disagree(scores: Mapping[str, Any]) -> str | None:
    """Flag two judges that assign less than half of the reconstructions to the same class."""
    agreement = _parse_score(scores, "judge_agreement")
    if agreement.value is None or agreement.value >= MIN_JUDGE_AGREEMENT:
        return None
    return f"two judges assign the same class to {agreement.value:.1%} of {agreement.n} reconstructions"


def high_false_positive_rate(scores: Mapping[str, Any]) -> str | None:
    """Flag judges that both accept more than a tenth of the calibrated negatives, by the whole interval."""
    rate = _parse_score(scores, "fpr_both")
    low = rate.interval[0] if rate.interval else rate.value
    if rate.value is None or low is None or low <= MAX_FALSE_POSITIVE_RATE:
        return None
    return (
        f"both judges classify {rate.value:.1%} of {rate.n} calibrated negatives as the label they were pushed towards"
    )


def _evaluator_flags(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Flags set by evaluators, each message prefixed with the name of its score."""
    for score, facts in scores.items():
        flags = facts.get("flags") if isinstance(facts, Mapping) else None
        for name, message in flags.items() if isinstance(flags, Mapping) else ():
            if isinstance(name, str) and name and isinstance(message, str) and message:
                yield name, f"{score}: {message}"


@dataclass(frozen=True)
class _ScoreFacts:
    """Facts of a score that rules use; invalid values are `None`."""

    value: float | None
    interval: Interval | None
    chance: float | None
    n: int
    reason: str | None


def _parse_score(scores: Mapping[str, Any], name: str) -> _ScoreFacts:
    found = scores.get(name)
    facts: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    value, chance, n, reason = (facts.get(key) for key in ("value", "chance", "n", "reason"))
    interval = facts.get("interval")
    ends = interval if isinstance(interval, Sequence) and len(interval) == 2 else (None, None)
    number, low, high = _finite_number(value), _finite_number(ends[0]), _finite_number(ends[1])
    return _ScoreFacts(
        number,
        None if number is None or low is None or high is None else (low, high),
        _finite_number(chance),
        int(_finite_number(n) or 0),
        reason if isinstance(reason, str) else None,
    )


def _finite_number(value: Any) -> float | None:
    """Return `value` if it is a finite number, else `None`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _curve_values(series: Any, name: str) -> list[float | None]:
    """Values of a curve without their steps; `None` for diverged values."""
    curve = series.get(name) if isinstance(series, Mapping) else None
    pairs = curve if isinstance(curve, Sequence) else ()
    values = [_finite_number(pair[1]) if isinstance(pair, Sequence) and len(pair) == 2 else None for pair in pairs]
    return [None if value is None or abs(value) > _MAX_LOSS else value for value in values]


def _format_mean(points: Sequence[float | None]) -> str:
    """Format the mean of points; `not a number` if a value is missing."""
    values = [value for value in points if value is not None]
    return f"{statistics.fmean(values):.3g}" if len(values) == len(points) else "not a number"
