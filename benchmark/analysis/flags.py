"""What casts doubt on a record: one rule a flag, and why each matters.

A rule gets plain values, as JSON gives them, and returns a sentence with its figures, or `None`. What a rule needs and
does not find (an older artifact, a score that failed) is no finding. `docs/flags.md` says what to do about each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..records.record import Choice, Flag, Interval

if TYPE_CHECKING:
    from .aggregate import Row, Section

#: A judge below this test accuracy is flagged.
WEAK_JUDGE = 0.8
#: Two judges that name the same class less often than this are flagged.
AGREEMENT = 0.5
#: Judges that take calibrated negatives for the label more often than this, beyond doubt, are flagged.
FALSE_POSITIVES = 0.1
#: A shorter curve is not judged: it comes from a smoke run, whose steps are too few to show anything.
CURVE_POINTS = 30
#: An attack loss must fall by this share of where it starts, at least.
LEAST_FALL = 0.01
#: A target that gives more than this share of the probed images no gradient is flagged.
ZERO_GRADIENTS = 0.1
#: Kinds of access that can be compared, in order of what they show. `features` is none of them: such an attack is given
#: latents of the very images it reconstructs, so it knows other things than the rest, neither more nor less.
ACCESS_ORDER = ("labels", "scores", "white_box")
_CURVE_STAGES = ("prior", "evidence")
#: A loss beyond this has diverged; sums of such numbers overflow.
_DIVERGED = 1e100

#: Why each flag matters and what to do, for readers of a report; `docs/flags.md` has the rules.
EXPLANATIONS: Mapping[str, str] = {
    "weak_judge": "The judge is often wrong on real images, so what it says of reconstructions, and distances in its "
    "features, mean little. Train it longer before comparing defenses.",
    "target_collapsed": "The target is no better than guessing, so it holds little that could leak. Low leakage is "
    "then no merit of the defense; read it together with the utility, or train the target longer.",
    "attack_loss_did_not_fall": "What the attack minimises did not go down, so the attack did not work, and its low "
    "success says nothing about the defense. Change its step size or number of steps, or look for a target without "
    "useful gradients.",
    "fid_rank_deficient": "A Frechet distance needs more images than features; below that the covariance is "
    "rank-deficient and the value mostly bias. Compare it only with values of equal numbers of images.",
    "random_output": "The target answers the same image differently each time. Results of attacks are averages over "
    "this noise and its gradients are noisy, so an attack that averages several answers may succeed where this one did "
    "not. Attack it with more draws, or without the noise, before calling it private.",
    "zero_input_gradient": "The target gives no usable gradient for its input (gradient masking). Attacks that follow "
    "gradients fail for want of them and not for want of information; compare with attacks that use none.",
    "shared_lineage": "Target and judge are of one design, or start from weights trained on the same data, so they "
    "share mistakes, and a reconstruction that fools the one fools the other. Read attack accuracy beside a judge of "
    "another design and training.",
    "weaker_access_wins": "An attack that sees less of the target reconstructs more than this one, so this one is not "
    "at its strength, or the target hides its gradients. Its numbers bound nothing; tune it or take the weaker one's.",
    "judges_disagree": "Two independent judges name different classes for most reconstructions, so those are no clear "
    "pictures of any class. Trust the verified accuracy and the pictures, not the accuracy of one judge.",
    "high_false_positive_rate": "Both judges often take public images for a private class once these are pushed "
    "towards it with the target's gradient. Attack accuracy then counts such images as successes; read it as a "
    "rate above this one, and look at the nearest private images.",
}


@dataclass(frozen=True)
class Lineage:
    """Where a trained network comes from.

    Args:
        network: its name in the registry.
        family: the design that it shares with networks of other depths or widths; empty if unknown.
        pretraining: the data behind the weights it started from; empty if those were random.
    """

    network: str
    family: str = ""
    pretraining: str = ""


def of_cell(
    *,
    scores: Mapping[str, Any],
    judge: Mapping[str, Any] | None = None,
    curves: Mapping[str, Any] | None = None,
    decreasing_losses: Mapping[str, str] | None = None,
    probe: Mapping[str, Any] | None = None,
    target: Lineage | None = None,
    judges: Sequence[Lineage] = (),
) -> list[dict[str, str]]:
    """The flags of one cell, as JSON.

    Args:
        scores: by name, as `scores.json` holds them.
        judge: the facts of the judge's stage; empty or `None` if there was none.
        curves: by stage, loop and series.
        decreasing_losses: what the attack declares (`Attack.decreasing_losses`).
        probe: what `probe.examine` found; empty or `None` if the target was not probed.
        target: the target's lineage, if it is known.
        judges: those of the judges, the first one first.
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
    by_name = {name: [message] for name, message in found.items() if message}
    for name, message in _of_scores(scores):
        by_name.setdefault(name, []).append(message)
    return [{"name": name, "message": "; ".join(messages)} for name, messages in by_name.items()]


def weak_judge(judge: Mapping[str, Any]) -> str | None:
    """The accuracy of a judge on test images is below 0.8."""
    found = []
    second = judge.get("second")
    for name, facts in (("judge", judge), ("second judge", second if isinstance(second, Mapping) else {})):
        accuracy = _number(facts.get("test_accuracy"))
        if accuracy is not None and accuracy < WEAK_JUDGE:
            found.append(f"the {name} is right on {accuracy:.1%} of {facts.get('n')} test images")
    return f"{' and '.join(found)}, so what it says of reconstructions means little" if found else None


def target_collapsed(scores: Mapping[str, Any]) -> str | None:
    """The target is not above chance.

    MCC decides where it has an interval: where one answer is frequent, a useful target's accuracy may be at chance.
    """
    mcc, accuracy = _score(scores, "mcc"), _score(scores, "accuracy")
    if mcc.interval:
        message = f"the target's MCC of {mcc.value:.3f} is not above chance, so there is little to leak"
        return message if mcc.chance is not None and mcc.interval[0] <= mcc.chance else None
    if accuracy.interval and accuracy.chance is not None and accuracy.interval[0] <= accuracy.chance:
        return f"the target's accuracy of {accuracy.value:.1%} is not above chance, so there is little to leak"
    if mcc.value is None and mcc.chance is not None and mcc.reason and accuracy.value is not None:
        return f"{mcc.reason}, so nothing shows that the target has learned anything"
    return None


def attack_loss_did_not_fall(curves: Mapping[str, Any], decreasing_losses: Mapping[str, str]) -> str | None:
    """A curve that must fall does not; see `fell`."""
    found = []
    for stage in _CURVE_STAGES:
        loops = curves.get(stage)
        for loop, series in loops.items() if isinstance(loops, Mapping) else ():
            for name in dict.fromkeys(
                name for pattern, name in decreasing_losses.items() if fnmatchcase(loop, pattern)
            ):
                points = _points(series, name)
                if has_decreased(points) is False:
                    ends = f"begins at {_shown(points[:1])} and ends at {_shown(points[-(len(points) // 5) :])}"
                    found.append(f"{name} of loop {loop!r} {ends}")
    return f"{'; '.join(found)}: no fall beyond its spread, so the attack did not work" if found else None


def has_decreased(points: Sequence[float | None]) -> bool | None:
    """Whether a loss went down; `None` if there are fewer than 30 points.

    Let s be the larger of the first value and the mean of the first fifth (an attack may be done within its first
    points), e and d mean and standard deviation of the last fifth. It fell if `s - e > max(2 d, 0.01 |s|)`. A point
    that is not a number is no fall.
    """
    if len(points) < CURVE_POINTS:
        return None
    values = [value for value in points if value is not None]
    if len(values) < len(points):
        return False
    part = len(values) // 5
    start, tail = max(values[0], statistics.fmean(values[:part])), values[-part:]
    return start - statistics.fmean(tail) > max(2 * statistics.pstdev(tail), LEAST_FALL * abs(start))


def random_output(probe: Mapping[str, Any]) -> str | None:
    """Some logits differ between two runs on the same images."""
    n, logits, decisions = (_number(probe.get(name)) for name in ("n", "random_logits", "random_decisions"))
    if not n or not logits:
        return None
    changed = f", the decision on {decisions:.0f}" if decisions is not None else ""
    return f"asked twice, the target gives other logits on {logits:.0f} of {n:.0f} private test images{changed}"


def zero_input_gradient(probe: Mapping[str, Any]) -> str | None:
    """More than a tenth of the probed images have a gradient that is zero or not finite."""
    n, zeros, norm = (_number(probe.get(name)) for name in ("n", "zero_gradients", "gradient_norm"))
    if not n or zeros is None or zeros <= ZERO_GRADIENTS * n:
        return None
    failed = probe.get("gradient_failed")
    if isinstance(failed, str) and failed:
        return f"the gradient of the loss with respect to the input cannot be computed: {failed}"
    median = f" (median norm {norm:.3g})" if norm is not None else ""
    return f"the loss has no gradient with respect to the input on {zeros:.0f} of {n:.0f} private test images{median}"


def shared_lineage(target: Lineage | None, judges: Sequence[Lineage]) -> str | None:
    """Target and a judge are of one family, or start from weights trained on the same data."""
    found = []
    for judge in judges if target else ():
        assert target is not None
        pair = f"target {target.network} and judge {judge.network}"
        if target.network == judge.network:
            found.append(f"{pair} are one architecture")
        elif target.family and target.family == judge.family:
            found.append(f"{pair} are both of the family {target.family}")
        if target.pretraining and target.pretraining == judge.pretraining:
            found.append(f"{pair} both start from weights trained on {target.pretraining}")
    return "; ".join(found) or None


def judges_disagree(scores: Mapping[str, Any]) -> str | None:
    """Two judges name the same class for less than half of the reconstructions."""
    agreement = _score(scores, "judge_agreement")
    if agreement.value is None or agreement.value >= AGREEMENT:
        return None
    return f"two judges name the same class for {agreement.value:.1%} of {agreement.n} reconstructions"


def high_false_positive_rate(scores: Mapping[str, Any]) -> str | None:
    """Both judges take more than a tenth of the calibrated negatives for the label, the whole interval says."""
    rate = _score(scores, "fpr_both")
    low = rate.interval[0] if rate.interval else rate.value
    if rate.value is None or low is None or low <= FALSE_POSITIVES:
        return None
    return f"both judges take {rate.value:.1%} of {rate.n} calibrated negatives for the label they were pushed towards"


def cross_cell_flags(section: Section) -> dict[str, tuple[Flag, ...]]:
    """Flags that only several cells show, by key of the record: what a weaker attack reconstructs and it does not."""
    messages: dict[str, list[str]] = {}
    for score in (column for column in section.columns if column.measures == "leakage"):
        for row, message in _beaten(section.rows, score.name):
            for record in row.records:
                messages.setdefault(record.key, []).append(message)
    return {key: (Flag(name="weaker_access_wins", message="; ".join(texts)),) for key, texts in messages.items()}


def _beaten(rows: Iterable[Row], score: str) -> Iterator[tuple[Row, str]]:
    """Rows whose attack sees more of the same defense than one that leaks more, beyond the intervals of both."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if score in row.scores and row.scores[score].value is not None and _order(row) >= 0:
            groups.setdefault(row.defense, []).append(row)
    for group in groups.values():
        if len({_order(row) for row in group}) == 1:
            continue
        for row in group:
            alike = [other for other in group if _evaluator(other, score) == _evaluator(row, score)]
            weaker = [other for other in alike if _wins(other, row, alike, score)]
            if weaker:
                yield row, _comparison(max(weaker, key=lambda other: _leak(other, score)), row, score)


def _wins(weaker: Row, row: Row, group: Sequence[Row], score: str) -> bool:
    """Whether `weaker`, which sees less than `row`, surely leaks more than the best attack that sees more than it."""
    if _order(weaker) >= _order(row):
        return False
    best = max((other for other in group if _order(other) > _order(weaker)), key=lambda other: _leak(other, score))
    ours, theirs = weaker.scores[score].interval, best.scores[score].interval
    if ours is None or theirs is None:
        return False
    higher_leaks = weaker.scores[score].definition.better == "lower"
    return ours[0] > theirs[1] if higher_leaks else ours[1] < theirs[0]


def _comparison(weaker: Row, row: Row, score: str) -> str:
    ours, theirs = row.scores[score], weaker.scores[score]
    title = ours.definition.title
    return (
        f"{weaker.attack}, which sees {_access(weaker)} only, leaks more by {title}: {theirs.value:.3g} against "
        f"{ours.value:.3g} of {row.attack}, which sees {_access(row)}"
    )


def _leak(row: Row, score: str) -> float:
    """The row's value, larger where more leaks."""
    summary = row.scores[score]
    assert summary.value is not None
    return summary.value if summary.definition.better == "lower" else -summary.value


def _evaluator(row: Row, score: str) -> Choice:
    """The configured evaluator behind the row's score."""
    return next(record.evaluator(score) for record in reversed(row.records) if score in record.scores)


def _access(row: Row) -> str | None:
    """What the row's attack may see; `None` if its records do not say, or not the same."""
    found = {record.access for record in row.records}
    return found.pop() if len(found) == 1 else None


def _order(row: Row) -> int:
    """How much the row's attack sees; -1 if that cannot be compared."""
    access = _access(row)
    return ACCESS_ORDER.index(access) if access in ACCESS_ORDER else -1


def _of_scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Flags that evaluators set, each message after the name of its score."""
    for score, facts in scores.items():
        flags = facts.get("flags") if isinstance(facts, Mapping) else None
        for name, message in flags.items() if isinstance(flags, Mapping) else ():
            if isinstance(name, str) and name and isinstance(message, str) and message:
                yield name, f"{score}: {message}"


@dataclass(frozen=True)
class _Score:
    """What rules read of a score; whatever is not as it should be is `None`."""

    value: float | None
    interval: Interval | None
    chance: float | None
    n: int
    reason: str | None


def _score(scores: Mapping[str, Any], name: str) -> _Score:
    found = scores.get(name)
    facts: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    value, chance, n, reason = (facts.get(key) for key in ("value", "chance", "n", "reason"))
    interval = facts.get("interval")
    ends = [_number(end) for end in interval] if isinstance(interval, Sequence) and len(interval) == 2 else [None, None]
    known = ends[0] is not None and ends[1] is not None and _number(value) is not None
    return _Score(
        _number(value),
        (ends[0], ends[1]) if known else None,  # type: ignore[arg-type]
        _number(chance),
        int(_number(n) or 0),
        reason if isinstance(reason, str) else None,
    )


def _number(value: Any) -> float | None:
    """`value` if it is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _points(series: Any, name: str) -> list[float | None]:
    """The values of a curve without their steps; what is beyond reason is no number."""
    curve = series.get(name) if isinstance(series, Mapping) else None
    pairs = curve if isinstance(curve, Sequence) else ()
    values = [_number(pair[1]) if isinstance(pair, Sequence) and len(pair) == 2 else None for pair in pairs]
    return [None if value is None or abs(value) > _DIVERGED else value for value in values]


def _shown(points: Sequence[float | None]) -> str:
    """The mean of points, unless one is not a number."""
    values = [value for value in points if value is not None]
    return f"{statistics.fmean(values):.3g}" if len(values) == len(points) else "no number"
