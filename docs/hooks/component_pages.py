"""Generate a page for every built-in component and an index for every kind, from docstrings, fields and attributes."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import typer.testing
from docstrings import parts, prose, table
from privbench.benchmark import registry
from privbench.benchmark.analysis.row_labels import flat
from privbench.benchmark.cli.main import app
from privbench.benchmark.core.config import BUDGETS, Configuration, Protocol
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.resolve import defaults, resolve
from privbench.benchmark.registry import KINDS, Kind

PLURALS = {kind: f"{kind}s" for kind in KINDS}
TITLES = {kind: plural.capitalize() for kind, plural in PLURALS.items()} | {
    "dataset": "Data sets",
    "perceptual": "Perceptual networks",
}
ABOUT = {
    "dataset": "Private and public images with their protocol: `--dataset NAME`.",
    "defense": "Ways to train a target: `--defense NAME` or `--defense NAME:PRESET`.",
    "attack": "Ways to reconstruct private data through an allowed view of the target: `--attack NAME`.",
    "evaluator": "Compute scores from evidence, the output of an attack; by default all that apply run, else "
    "`--evaluator NAME`. [Metrics](../../metrics.md) defines every score.",
    "network": "Classifiers that protocols use as target and judges.",
    "embedder": "Networks that map an image to one vector, for scores and attacks that compare images. "
    "[Weights](../../weights.md) lists where their weights come from.",
    "perceptual": "Networks whose activations measure how similar two images look. "
    "[Weights](../../weights.md) lists where their weights come from.",
}
#: For each kind, the attributes that a component declares besides its fields, with their meaning.
DECLARED = {
    "attack": (
        ("access", "access"),
        ("yields", "evidence it returns"),
        ("prior", "learns a prior"),
        ("tasks", "tasks"),
        ("decreasing_losses", "losses it minimises"),
    ),
    "defense": (("tasks", "tasks"),),
    "evaluator": (
        ("needs", "evidence it reads"),
        ("judges", "judges it uses"),
        ("optional", "runs only when named"),
    ),
    "dataset": (("family", "uses the presets of"),),
    "network": (("family", "family"), ("pretraining", "data of the published weights")),
    "embedder": (("faces", "for faces only"), ("weights", "weights")),
    "perceptual": (("weights", "weights"), ("smallest", "smallest side, pixels")),
}
_PRIOR = {"none": "no", "public": "one for all targets, from public images", "target": "one for each target"}


def built_in(kind: Kind) -> list[registry.RegisteredComponent]:
    """Components of this distribution; plugins on the machine that builds the site have no page."""
    return [entry for entry in registry.entries(kind) if entry.distribution == "privbench"]


def source(entry: registry.RegisteredComponent) -> str:
    """The component's source file, relative to the repository."""
    return entry.target.partition(":")[0].removeprefix("privbench.").replace(".", "/") + ".py"


def pages() -> Iterator[tuple[str, str]]:
    """Paths and Markdown of the pages that only the site has."""
    for kind in KINDS:
        yield f"components/{PLURALS[kind]}/index.md", _index(kind)
        for entry in built_in(kind):
            yield f"components/{PLURALS[kind]}/{entry.name}.md", page(kind, entry.name)


def shown(kind: str, name: str) -> dict[str, Any]:
    """The output of `privbench show`."""
    done = typer.testing.CliRunner().invoke(app, ["show", kind, name, "--json"], catch_exceptions=False)
    facts: dict[str, Any] = json.loads(done.output)
    return facts


def page(kind: Kind, name: str) -> str:
    """The page of one component."""
    facts, component = shown(kind, name), registry.load(kind, name)
    summary, text, sections = parts(facts["about"])
    found = [f"# {name}", prose(summary), _declared(kind, name, component, facts), prose(text)]
    for title in ("References", "Raises"):
        found += [f"**{title}**", *(prose(body) for head, body in sections if head == title)]
        if found[-1] == f"**{title}**":
            found.pop()
    notes = [prose(body).replace("\n", "\n  ") for head, body in sections if head == "Note"]
    if notes:
        found += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    if kind == "dataset":
        found += ["## Protocol", _protocol(name)]
    if facts["fields"]:
        found += ["## Fields", _fields(component, facts["fields"])]
    if kind == "evaluator":
        found += ["## Scores", _scores(component)]
    if facts["presets"]:
        found += ["## Presets", _presets(component)]
    found += ["## On the command line", f"```bash\nprivbench show {kind} {name}\n```"]
    return "\n\n".join(part for part in found if part) + "\n"


def overview() -> str:
    """The page that lists all components; its links lead to their source files."""
    rows = [
        (TITLES[kind], ", ".join(f"[`{entry.name}`](../../{source(entry)})" for entry in built_in(kind)))
        for kind in KINDS
    ]
    text = (
        "All built-in components. The documentation site has a page for each, generated from its docstring and fields; "
        "in the repository, each name links to the source file. `privbench list` and `privbench show` print the same "
        "information, also for plugins: [your own components](../plugins.md)."
    )
    return f"# Components\n\n{text}\n\n{table(('kind', 'names'), rows)}\n"


def _index(kind: Kind) -> str:
    declared = [
        (attribute, title) for attribute, title in DECLARED[kind] if attribute not in ("decreasing_losses", "family")
    ]
    rows = []
    for entry in built_in(kind):
        component = registry.load(kind, entry.name)
        values = [_attribute(component, attribute) for attribute, _ in declared]
        rows.append([f"[`{entry.name}`]({entry.name}.md)", prose(parts(component.__doc__)[0]), *values])
    head = ("name", "what it does", *(title for _, title in declared))
    return f"# {TITLES[kind]}\n\n{ABOUT[kind]}\n\n{table(head, rows)}\n"


def _declared(kind: Kind, name: str, component: type[Any], facts: dict[str, Any]) -> str:
    entry = registry.find(kind, name)
    rows = [("class", f"`{entry.target.replace(':', '.')}`"), ("version", str(facts["version"]))]
    rows += [(title, _attribute(component, attribute)) for attribute, title in DECLARED[kind]]
    return table((kind, f"`{name}`"), [row for row in rows if row[1]])


def _attribute(component: type[Any], attribute: str) -> str:
    value = getattr(component, attribute, None)
    if attribute == "prior":
        return _PRIOR[str(value)]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"`{series}` of `{loop}`" for loop, series in value.items())
    if isinstance(value, (tuple, frozenset)):
        return ", ".join(f"`{each}`".replace("|", "` or `") for each in sorted(value))
    return f"`{value}`" if value not in (None, "") else ""


def _fields(component: type[Configuration], rows: list[dict[str, Any]]) -> str:
    declared = {name: (info, stages) for name, info, stages in _infos(component)}
    lines = []
    for row in rows:
        info, stages = declared[row["name"]]
        others = [_value(row[budget]) if row[budget] != row["full"] else "" for budget in ("quick", "smoke")]
        lines.append([f"`{row['name']}`", _kind_of(info), _value(row["full"]), *others, row["about"], stages])
    head = ("field", "type and range", "full", "quick", "smoke", "meaning", "stages")
    return table(head, lines)


def _infos(component: type[Configuration]) -> Iterator[tuple[str, Any, str]]:
    """Every field: its dotted name, as in `privbench show`, its declaration, and the stages that depend on it."""
    for field, info in component.model_fields.items():
        extra = info.json_schema_extra
        stages = ", ".join(map(str, extra.get("stages") or ())) if isinstance(extra, dict) else ""
        if isinstance(info.annotation, type) and issubclass(info.annotation, Configuration):
            for name, inner, _ in _infos(info.annotation):
                yield f"{field}.{name}", inner, stages or "all"
        else:
            yield field, info, stages or "all"


def _kind_of(info: Any) -> str:
    """The type and range of a field, such as `int, >= 1`."""
    kinds = [kind for kind in get_args(info.annotation) if kind is not type(None)]
    if kinds and all(isinstance(kind, str) for kind in kinds):
        text = "one of " + ", ".join(f"`{kind}`" for kind in kinds)
    else:
        text = getattr(info.annotation, "__name__", "") if not kinds else ""
        text = text or str(info.annotation).replace("typing.", "").replace("NoneType", "None")
    bounds = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
    limits = [
        f"{sign} {getattr(rule, key)}" for rule in info.metadata for key, sign in bounds.items() if _has(rule, key)
    ]
    return ", ".join([text, *limits])


def _has(rule: Any, key: str) -> bool:
    return getattr(rule, key, None) is not None


def _value(value: Any) -> str:
    return "" if value == "" else f"`{json.dumps(value, default=str)}`"


def _scores(component: type[Any]) -> str:
    lines = [
        (
            f"[`{each.name}`](../../metrics.md#{each.name})",
            each.title,
            each.measures,
            f"{each.better} is better",
            each.range,
        )
        for each in component.scores
    ]
    return table(("score", "title", "measures", "for a defender", "range"), lines)


def _presets(component: type[Any]) -> str:
    """The values of each preset that differ from the defaults."""
    usual = flat(defaults(component))
    rows = []
    for name, values in component.presets.items():
        changed = {key: value for key, value in flat(dict(values)).items() if _listed(value) != _listed(usual.get(key))}
        rows.append((f"`{name}`", ", ".join(f"`{key}` {_value(value)}" for key, value in changed.items()) or "nothing"))
    text = (
        "By default, the preset named after the data set applies, or else the preset named after its family. "
        "`NAME:PRESET` selects another. `DATASET@BUDGET` holds the changes of that budget on that data set."
    )
    return f"{text}\n\n{table(('preset', 'values that differ from the defaults'), rows)}"


def _protocol(name: str) -> str:
    """The fields of the protocol; columns for `quick` and `smoke` only where they differ."""
    by_budget = {budget: resolve("dataset", Selection(name), budget, {}).component.protocol for budget in BUDGETS}
    published = by_budget["full"]
    rows = [("`id`", _value(published.id), "", "", "name and version")]
    for field, info in Protocol.model_fields.items():
        values = {budget: _value(_listed(getattr(protocol, field))) for budget, protocol in by_budget.items()}
        others = [values[budget] if values[budget] != values["full"] else "" for budget in ("quick", "smoke")]
        rows.append((f"`{field}`", values["full"], *others, info.description or ""))
    return table(("", "full", "quick", "smoke", "meaning"), rows)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
