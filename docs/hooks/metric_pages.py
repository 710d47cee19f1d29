"""Generate the page of metrics from the definitions of the evaluators and the committed records."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

from component_pages import built_in, source
from privbench.benchmark import registry
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.core.config import Definition
from privbench.benchmark.report.formatting import ARROWS, format_number, unit_of

RESULTS = Path(__file__).resolve().parents[2] / "results"
TITLES = {
    "utility": "Utility: how useful the target is",
    "leakage": "Leakage: how much an attack recovered",
    "quality": "Quality: how reliable the other numbers are",
}
INTRODUCTION = """# Metrics

All scores, as their evaluators define them. The arrow shows the direction that a *defender* prefers. Every value in a
record and on the board has a 95 % interval and its n, and, where guessing is meaningful, the value of guessing
(*chance*). A score that cannot be computed is `None`, with a reason. [Protocols](protocols.md#evaluators) describes the
intervals, [rankings](ranking.md) how scores become ranks."""


def definitions() -> list[tuple[Definition, registry.RegisteredComponent]]:
    """Every score with its evaluator."""
    found = [(each, entry) for entry in built_in("evaluator") for each in registry.load("evaluator", entry.name).scores]
    return sorted(found, key=lambda pair: pair[0].name)


def page() -> str:
    """The Markdown of the page."""
    found = [INTRODUCTION]
    for measures in get_args(Definition.model_fields["measures"].annotation):
        found.append(f"## {TITLES[measures]}")
        found += ["\n".join(_entry(each, owner)) for each, owner in definitions() if each.measures == measures]
    return "\n\n".join(found) + "\n"


def _entry(each: Definition, owner: registry.RegisteredComponent) -> Iterator[str]:
    yield f"### {each.name}\n"
    yield f"{each.formula[:1].upper()}{each.formula[1:]}.\n"
    yield f"| title | {each.title} {ARROWS[each.better]} |\n|---|---|"
    yield f"| evaluator | [`{owner.name}`](../{source(owner)}) |"
    yield f"| for a defender | {each.better} is better |"
    yield f"| unit | {each.unit} |"
    yield f"| range | {each.range} |"
    chances = ", ".join(_chances(each))
    if chances:
        yield f"| chance in our records | {chances} |"


def _chances(each: Definition) -> Iterator[str]:
    for (protocol, score), values in sorted(_recorded().items()):
        if score == each.name:
            shown = [format_number(value, each.unit) for value in (min(values), max(values))]
            text = " to ".join(dict.fromkeys(shown))
            yield f"{text} {unit_of(each)}".rstrip() + f" on `{protocol}`"


@cache
def _recorded() -> dict[tuple[str, str], set[float]]:
    found: dict[tuple[str, str], set[float]] = {}
    for record in load_records(RESULTS).items:
        for name, score in record.scores.items():
            if score.chance is not None:
                found.setdefault((record.protocol, name), set()).add(score.chance)
    return found
