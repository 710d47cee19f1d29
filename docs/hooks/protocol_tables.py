"""Tables of docs/protocols.md, generated from the components.

Each table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. `make docs-tables` writes them into the
page, so that the repository view shows them too; a test checks that they are up to date.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from component_pages import built_in
from docstrings import table
from privbench.benchmark import registry
from privbench.benchmark.core.config import BUDGETS, Recipe
from privbench.benchmark.pipeline.cell import Choice, Selection
from privbench.benchmark.pipeline.resolve import resolve

#: Order of the values in a cell: the published value first.
ORDER = tuple(reversed(BUDGETS))
_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with every marked table replaced by the generated one."""
    generated = tables()
    return _MARKED.sub(lambda found: f"{found[1]}\n{generated[found[2]]}\n\n{found[3]}", page)


def tables() -> dict[str, str]:
    """All tables, by the name in their marker."""
    return {
        "classes": _protocols("classes", CLASS_ROWS),
        "attributes": _protocols("attributes", ATTRIBUTE_ROWS),
        "judges": _recipes("judge", "classes"),
        "second-judges": _recipes("second_judge", "classes"),
        "targets": _recipes("target", "classes", "attributes"),
        **{
            f"presets-{each.name}": _presets(each.name)
            for each in built_in("defense")
            if registry.load("defense", each.name).presets
        },
        **{f"fields-{each.name}": _fields(each.name) for each in built_in("attack")},
    }


@cache
def data_sets(*tasks: str) -> tuple[str, ...]:
    """Names of the built-in data sets of some tasks, in their order; those with small images first."""
    protocols = {each.name: configured(each.name, "quick").component.protocol for each in built_in("dataset")}
    names = [name for name, protocol in protocols.items() if protocol.task in tasks]
    return tuple(sorted(names, key=lambda name: (tasks.index(protocols[name].task), protocols[name].image[::-1], name)))


@cache
def configured(name: str, budget: str = "full") -> Choice:
    """A data set with the values of a budget."""
    return resolve("dataset", Selection(name), budget, {})  # type: ignore[arg-type]


def shown(value: Any) -> str:
    """A value as the tables print it."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return str(value)


def by_budget(value: Callable[[str], Any]) -> str:
    """The values under `full / quick / smoke`, or the one that holds for all three."""
    texts = [shown(value(budget)) for budget in ORDER]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _columns(title: str, names: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table with one column for each name; names with equal columns share one."""
    listed = list(rows)
    groups: dict[tuple[str, ...], list[str]] = {}
    for i, name in enumerate(names):
        groups.setdefault(tuple(cells[i] for _, cells in listed), []).append(name)
    body = [[head, *(column[row] for column in groups)] for row, (head, _) in enumerate(listed)]
    heads = [", ".join(group) for group in groups.values()] if len(groups) > 1 else ["all data sets"]
    return table([title, *heads], body)


def _protocols(task: str, rows: dict[str, Callable[[Any], Any]]) -> str:
    def cell(name: str, value: Callable[[Any], Any]) -> str:
        return by_budget(lambda budget: value(configured(name, budget).component))

    names = data_sets(task)
    return table(["", *names], [[title, *(cell(name, value) for name in names)] for title, value in rows.items()])


def _start(data: Any) -> str:
    protocol = data.protocol
    roles = ("target", "judge", "second_judge")
    starts = ["published weights" if protocol.starts_from_published(role) else "random weights" for role in roles]
    return "; ".join(starts if len(set(starts)) > 1 else starts[:1])


def _sampler(data: Any) -> str:
    protocol = data.protocol
    if protocol.sampler == "shuffle":
        return "shuffle"
    return f"{protocol.sampler}, {Recipe().batch_size // protocol.instances} x {protocol.instances}"


COMMON_ROWS: dict[str, Callable[[Any], Any]] = {
    "protocol": lambda data: f"`{data.protocol.id}`",
    "image (C x H x W)": lambda data: " x ".join(map(str, data.protocol.image)),
    "outputs of the target (classes or attributes)": lambda data: data.protocol.classes,
    "target network": lambda data: f"`{data.protocol.target_network}`",
    "sampler of the target": _sampler,
    "augmentation of the target": lambda data: data.protocol.augmentation,
}
CLASS_ROWS = COMMON_ROWS | {
    "classes of the judge": lambda data: data.protocol.judge_classes,
    "judge network": lambda data: f"`{data.protocol.judge_network}`",
    "second judge network": lambda data: f"`{data.protocol.second_judge_network}`",
    "start of the target; of the judge; of the second judge": _start,
    "attacked labels: the first": lambda data: data.protocol.attacked,
    "labels attacked together (group)": lambda data: data.protocol.group,
    "draws per label and trial": lambda data: data.protocol.draws,
    "trials": lambda data: data.protocol.trials,
    "reconstructions per trial": lambda data: data.protocol.attacked * data.protocol.draws,
    "calibrated negatives per label": lambda data: data.negatives,
    "FID's private images per label": lambda data: data.protocol.reference,
    "FID's private images in all": lambda data: data.protocol.attacked * data.protocol.reference,
    "chance, Attack Acc": lambda data: 1 / data.protocol.judge_classes,
    "chance, Attack Acc5": lambda data: 5 / data.protocol.judge_classes,
}
ATTRIBUTE_ROWS = COMMON_ROWS | {
    "start of the target": _start,
    "observed encodings at most": lambda data: data.protocol.observed,
}


def _recipes(role: str, *tasks: str) -> str:
    """The training of the targets, or of the first or second judges, on every data set of the tasks."""

    def cell(name: str, field: str) -> str:
        return by_budget(lambda budget: _recipe_value(getattr(configured(name, budget).component, role), field))

    names = data_sets(*tasks)
    rows = [
        (f"`{field}`: {info.description}", [cell(name, field) for name in names])
        for field, info in Recipe.model_fields.items()
    ]
    return _columns("", names, rows)


def _recipe_value(recipe: Recipe, field: str) -> Any:
    """A field's value, or a dash where the recipe does not read the field."""
    unread = ("momentum", "nesterov") if recipe.optimizer == "adam" else ()
    unread += () if recipe.milestones else ("gamma",)
    return "-" if field in unread else getattr(recipe, field)


def _presets(name: str) -> str:
    """The presets of a defense; those with equal values share a row."""
    component = registry.load("defense", name)
    used: dict[str, list[str]] = {}
    for each in data_sets("classes", "attributes"):
        names = (each, type(configured(each).component).family)
        used.setdefault(next((preset for preset in names if preset in component.presets), ""), []).append(each)
    presets = [preset for preset in component.presets if "@" not in preset]
    found = {preset: resolve("defense", Selection(name, preset=preset), "full", {}).component for preset in presets}
    if "" in used:
        found = {"": resolve("defense", Selection(name), "full", {}).component} | found
    own = [field for field in component.model_fields if field != "recipe" and _varies(field, found.values())]
    recipe = [field for field in Recipe.model_fields if field not in ("batch_size", "max_steps")]
    rows: dict[tuple[str, ...], list[str]] = {}
    for preset, values in found.items():
        named = "recipe" in component.presets.get(preset, {})
        cells = [getattr(values, field) for field in own]
        cells += [_recipe_value(values.recipe, field) if named else "-" for field in recipe]
        rows.setdefault(tuple(map(shown, cells)), []).append(preset)
    body = [
        [
            ", ".join(f"`{preset}`" if preset else "no preset" for preset in names),
            ", ".join(each for preset in names for each in used.get(preset, [])) or "-",
            *cells,
        ]
        for cells, names in rows.items()
    ]
    return table(["preset", "default on", *(f"`{field}`" for field in (*own, *recipe))], body)


def _varies(field: str, configurations: Iterable[Any]) -> bool:
    return len({getattr(each, field) for each in configurations}) > 1


def _fields(name: str) -> str:
    """The fields of an attack; data sets on which all are equal share a column."""
    component = registry.load("attack", name)
    names = data_sets(*sorted(component.tasks, reverse=True))
    found = {
        (each, budget): resolve("attack", Selection(name), budget, {}, configured(each, budget)).component
        for each in names
        for budget in BUDGETS
    }

    def cell(each: str, field: str) -> str:
        return by_budget(lambda budget: getattr(found[each, budget], field))

    rows = [
        (f"`{field}`: {info.description}", [cell(each, field) for each in names])
        for field, info in component.model_fields.items()
    ]
    return _columns("", names, rows)
