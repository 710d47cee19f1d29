"""The page of metric definitions, from what the evaluators declare and the committed records hold."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

from component_pages import built_in
from privbench.benchmark import registry
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.core.config import Definition
from privbench.benchmark.report.formatting import ARROWS, number, unit_of

RESULTS = Path(__file__).resolve().parents[2] / "results"
TITLES = {
    "utility": "Utility: what the target is good for",
    "leakage": "Leakage: what an attack got out of it",
    "quality": "Quality: how far the other numbers can be trusted",
}
INTRODUCTION = """# Metrics

Every score, as its evaluator defines it. The arrow says what a *defender* prefers. Every value in a record and on the
board has a 95 % interval, its n, and where it has a meaning what guessing gives (*chance*); a score that cannot be had
is `None` with a reason. How intervals are made stands on the evaluator's page and under
[protocols](protocols.md#evaluators); how scores become ranks under [rankings](ranking.md)."""


def definitions() -> list[tuple[Definition, str]]:
    """Every score with the evaluator that gives it."""
    found = [
        (each, entry.name) for entry in built_in("evaluator") for each in registry.load("evaluator", entry.name).scores
    ]
    return sorted(found, key=lambda pair: pair[0].name)


def page() -> str:
    """The Markdown."""
    found = [INTRODUCTION]
    for measures in get_args(Definition.model_fields["measures"].annotation):
        found.append(f"## {TITLES[measures]}")
        found += ["\n".join(_entry(each, owner)) for each, owner in definitions() if each.measures == measures]
    return "\n\n".join(found) + "\n"


def _entry(each: Definition, owner: str) -> Iterator[str]:
    yield f"### {each.title} {ARROWS[each.better]} {{ #{each.name} }}\n"
    yield f"{each.formula[:1].upper()}{each.formula[1:]}.\n"
    yield f"| score | `{each.name}` |\n|---|---|"
    yield f"| evaluator | [`{owner}`](components/evaluators/{owner}.md) |"
    yield f"| for a defender | {each.better} is better |"
    yield f"| unit | {each.unit} |"
    yield f"| range | {each.range} |"
    chances = ", ".join(_chances(each))
    if chances:
        yield f"| chance in our records | {chances} |"


def _chances(each: Definition) -> Iterator[str]:
    for (protocol, score), values in sorted(_recorded().items()):
        if score == each.name:
            shown = [number(value, each.unit) for value in (min(values), max(values))]
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
