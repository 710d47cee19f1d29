"""How numbers and names are written, the same in every format."""

from __future__ import annotations

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
    "↑ ↓: better for the defender. [low, high]: 95 % interval, Student-t over seeds where there are two or more, else "
    "the evaluator's own over its n observations. -: the attack gives nothing that the score reads. Numbers of "
    "different tables are not comparable."
)


@dataclass(frozen=True)
class Shown:
    """A score in words.

    Args:
        value: the number, `n/a`, or `-` where the attack never gives what the score reads.
        interval: such as `[71.0, 77.3]`; empty where there is none.
        basis: n, and the seeds if fewer than the row has.
        spread: standard deviation over seeds; empty below two.
        reason: why values are missing.
    """

    value: str
    interval: str
    basis: str
    spread: str
    reason: str


def number(value: float | None, unit: str) -> str:
    """A value in its unit: fractions as percent, four digits elsewhere; `n/a` for none.

    Example:
        >>> number(0.7423, "fraction"), number(12.3, "distance"), number(None, "ratio")
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
    """An interval; empty for none."""
    return "" if interval is None else f"[{number(interval[0], unit)}, {number(interval[1], unit)}]"


def unit_of(definition: Definition) -> str:
    """The unit after a number; empty for pure numbers."""
    return _UNITS.get(definition.unit, "")


def heading(definition: Definition) -> str:
    """Title, direction and unit of a column, such as `Attack Acc ↓ %`."""
    parts = (plain(definition.title, 40), ARROWS[definition.better], unit_of(definition))
    return " ".join(part for part in parts if part)


def shown(summary: Summary, seeds: int) -> Shown:
    """A score of a row of that many seeds."""
    unit = summary.definition.unit
    basis = f"n {summary.n:,}" if summary.value is not None else ""
    if summary.value is not None and summary.seeds < seeds:
        basis += f", {summary.seeds} of {seeds} seeds"
    return Shown(
        value="-" if summary.foreign else number(summary.value, unit),
        interval=format_interval(summary.interval, unit),
        basis=basis,
        spread="" if summary.std is None else number(summary.std, unit),
        reason="" if summary.foreign else plain(summary.reason),
    )


def shared_chance(section: Section, score: str) -> float | None:
    """What guessing gives, if all rows agree."""
    chances = {row.scores[score].chance for row in section.rows if row.scores[score].value is not None}
    return chances.pop() if len(chances) == 1 else None


def shorten_labels(labels: Iterable[str], limit: int) -> dict[str, str]:
    """A short form of each label: of those that begin with the same name, only the words in which they differ.

    Example:
        >>> shorten_labels(["none", "mid a=1 b=2", "mid a=1 b=3"], 20)
        {'none': 'none', 'mid a=1 b=2': 'mid b=2', 'mid a=1 b=3': 'mid b=3'}
        >>> shorten_labels(["adversarial x=1", "adversarial x=2"], 12)["adversarial x=2"]
        'adversa… x=2'
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for label in labels:
        name, *words = plain(label, 400).split(" ")
        groups.setdefault(name, {})[label] = words
    found = {}
    for name, group in groups.items():
        common = set.intersection(*map(set, group.values())) if len(group) > 1 else set()
        for label, words in group.items():
            rest = "".join(f" {word}" for word in words if word not in common)
            room = max(limit - len(rest), 6)
            found[label] = plain((name if len(name) <= room else name[: room - 1] + "…") + rest, limit)
    return found


def seed_list(seeds: Iterable[int]) -> str:
    """Seeds, runs of three or more shortened.

    Example:
        >>> seed_list([0, 1, 2, 7])
        '0-2, 7'
    """
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def plain(text: str, limit: int = 400) -> str:
    """Text of unknown origin on one line of bounded length, without control or direction characters."""
    if len(text) <= limit and text.isprintable() and "  " not in text and text == text.strip():
        return text
    visible = "".join(
        "�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") and not c.isspace() else c for c in text[: 4 * limit]
    )
    line = re.sub(r"\s+", " ", visible).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def json_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else _ENCODER.encode(value)


def title(section: Section) -> str:
    """What the numbers of a section have in common."""
    return f"{section.protocol}, budget {section.budget}" + (
        f", {plain(section.dataset, 80)}" if " " in section.dataset else ""
    )
