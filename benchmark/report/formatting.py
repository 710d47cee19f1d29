"""Text forms of numbers and names, the same in every output format."""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..analysis.aggregate import Section, Summary
from ..core.config import Definition
from ..records.record import Interval

_ENCODER = json.JSONEncoder(ensure_ascii=False)
ARROWS = {"higher": "↑", "lower": "↓"}
_UNITS = {"fraction": "%", "decibel": "dB"}
LEGEND = (
    "↑ ↓: the direction that is better for the defender. [low, high]: 95 % interval, over trainings (Student-t) if "
    "there are two or more seeds, else the evaluator's own over its n observations of one training. -: not applicable "
    "to this attack. Numbers from different tables are not comparable."
)

CONTROL_LEGEND = (
    "control: the placebo, a target trained on permuted labels; it is no defense and has no rank. Over placebo: the "
    "score minus the placebo's under the same attack, which is what the attack owes to the target; the interval is "
    "Student-t over labels, paired, and over trainings where there are several."
)


@dataclass(frozen=True)
class FormattedScore:
    """A score as text.

    Args:
        value: the number, `n/a`, or `-` if the score is not applicable to the attack.
        interval: such as `[71.0, 77.3]`; empty if there is none.
        basis: trainings that the interval covers if there are several, n, and the number of seeds if some of the row's
            have no value.
        spread: standard deviation over seeds; empty for fewer than two.
        reason: why values are missing.
    """

    value: str
    interval: str
    basis: str
    spread: str
    reason: str


def format_number(value: float | None, unit: str) -> str:
    """A value in its unit: fractions as percent, other units with four significant digits; `n/a` for `None`.

    Example:
        >>> format_number(0.7423, "fraction"), format_number(12.3, "distance"), format_number(None, "ratio")
        ('74.2', '12.30', 'n/a')
    """
    if value is None:
        return "n/a"
    if unit == "fraction":
        return f"{100 * value:.1f}"
    if unit == "decibel":
        return f"{value:.2f}"
    if unit == "similarity":
        return f"{value:.3f}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:#.4g}"


def format_interval(interval: Interval | None, unit: str) -> str:
    """An interval as text; empty for `None`."""
    return "" if interval is None else f"[{format_number(interval[0], unit)}, {format_number(interval[1], unit)}]"


def unit_of(definition: Definition) -> str:
    """The unit after a number; empty for pure numbers."""
    return _UNITS.get(definition.unit, "")


def column_heading(definition: Definition) -> str:
    """Title, direction and unit of a column, such as `Attack Acc ↓ %`."""
    parts = (sanitize(definition.title, 40), ARROWS[definition.better], unit_of(definition))
    return " ".join(part for part in parts if part)


def format_score(summary: Summary, seeds: int) -> FormattedScore:
    """A score of a row with that many seeds."""
    unit = summary.definition.unit
    several = f"{summary.covers}, " if summary.seeds > 1 else ""
    basis = f"{several}n {summary.n:,}" if summary.value is not None else ""
    if summary.value is not None and summary.seeds < seeds:
        basis += f", {summary.seeds} of {seeds} seeds"
    return FormattedScore(
        value="-" if summary.not_applicable else format_number(summary.value, unit),
        interval=format_interval(summary.interval, unit),
        basis=basis,
        spread="" if summary.std is None else format_number(summary.std, unit),
        reason="" if summary.not_applicable else sanitize(summary.reason),
    )


def shared_chance(section: Section, score: str) -> float | None:
    """The chance level of a score; `None` if the rows of the section disagree."""
    chances = {row.scores[score].chance for row in section.rows if row.scores[score].value is not None}
    return chances.pop() if len(chances) == 1 else None


def shorten_labels(labels: Iterable[str], limit: int) -> dict[str, str]:
    """A short form of each label; labels with the same first word keep only the words that differ.

    Example:
        >>> shorten_labels(["none", "mid a=1 b=2", "mid a=1 b=3"], 20)
        {'none': 'none', 'mid a=1 b=2': 'mid b=2', 'mid a=1 b=3': 'mid b=3'}
        >>> shorten_labels(["adversarial x=1", "adversarial x=2"], 12)["adversarial x=2"]
        'adversa… x=2'
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for label in labels:
        name, *words = sanitize(label, 400).split(" ")
        groups.setdefault(name, {})[label] = words
    shortened = {}
    for name, group in groups.items():
        common = set.intersection(*map(set, group.values())) if len(group) > 1 else set()
        for label, words in group.items():
            rest = "".join(f" {word}" for word in words if word not in common)
            room = max(limit - len(rest), 6)
            shortened[label] = sanitize((name if len(name) <= room else name[: room - 1] + "…") + rest, limit)
    return shortened


def format_seeds(seeds: Iterable[int]) -> str:
    """Seeds as text; three or more consecutive seeds become a range.

    Example:
        >>> format_seeds([0, 1, 2, 7])
        '0-2, 7'
    """
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def sanitize(text: str, limit: int = 400) -> str:
    """Untrusted text on one line of bounded length; control and direction characters become `�`."""
    if len(text) <= limit and text.isprintable() and "  " not in text and text == text.strip():
        return text
    visible = "".join(
        "�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") and not c.isspace() else c for c in text[: 4 * limit]
    )
    line = re.sub(r"\s+", " ", visible).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def json_text(value: Any) -> str:
    """A string unchanged, any other value as JSON."""
    return value if isinstance(value, str) else _ENCODER.encode(value)


def section_title(section: Section) -> str:
    """Protocol and budget of a section, and its data set if that was reconfigured."""
    return f"{section.protocol}, budget {section.budget}" + (
        f", {sanitize(section.dataset, 80)}" if " " in section.dataset else ""
    )
