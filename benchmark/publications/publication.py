"""Published tables as data, and the matrices that reproduce them.

A table is one TOML file beside this module. Values are as printed; what is known to be wrong with them stands beside
them, with its source. Nothing here imports torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..contracts import Budget, Configuration
from ..errors import InvalidConfigurationError, UnknownComponentError
from ..spec import Matrix, Selection, resolve

Unit = Literal["per cent", "distance", "weight"]


class Discrepancy(Configuration):
    """Something about a table that its reader would not guess."""

    what: str = Field(description="one or two sentences", min_length=20)
    where: str = Field(description="where it comes from", min_length=5)


class Column(Configuration):
    """One printed quantity.

    A column of results names the score that measures the same, a column of settings is named after a field of the
    defense.
    """

    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower"] | None = Field(None, description="what a defender prefers")
    score: str | None = Field(None, description="the score of the same definition")
    otherwise: str | None = Field(None, description="a score of another definition, shown where `score` is missing")
    incomparable: str = Field("", description="why numbers on other machines do not compare; empty if they do")
    spread: str | None = Field(None, description="our spread of the same meaning as the printed +-")
    spread_meaning: str = Field("", description="what the printed +- is")


class Published(Configuration):
    """A printed value, and the number after its +-."""

    value: float
    spread: float | None = Field(None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, given: Any) -> Any:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"value": given}
        if isinstance(given, list | tuple) and len(given) == 2:
            return {"value": given[0], "spread": given[1]}
        return given


class Cell(Configuration):
    """What reproduces a row; the data set picks the attack's preset."""

    protocol: str = Field(pattern=r"^[a-z0-9_]+/v[0-9]+$", description="the numbers of no other protocol compare")
    defense: str
    preset: str
    attack: str | None = Field(None, description="none in tables of settings")

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.protocol.partition("/")[0]

    def choose(self) -> Selection:
        """The defense with its preset."""
        return Selection(self.defense, self.preset)

    def configuration(self, budget: Budget) -> dict[str, Any]:
        """The fields of the defense under a budget."""
        found: dict[str, Any] = resolve("defense", self.choose(), budget, {}).component.config()
        return found


class Row(Configuration):
    """One printed setting."""

    label: str
    printed: str = Field("", description="how its line begins in the paper; the label by default")
    values: dict[str, Published]
    cell: Cell
    not_runnable: str = Field("", description="why it cannot be run, in one sentence; empty if it can")
    discrepancies: tuple[Discrepancy, ...] = ()


class Table(Configuration):
    """A published table.

    Args:
        name: such as `bido-table3`.
        citation: of the paper, on one line.
        caption: what the table shows, in our words.
        kind: `results`, or `settings` for hyper-parameters.
        evaluators: that give the scores of the columns.
        about: of a table of settings, the tables of results that use them.
    """

    name: str
    paper: str
    number: int = Field(ge=1)
    citation: str
    link: str
    caption: str
    kind: Literal["results", "settings"] = "results"
    evaluators: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    discrepancies: tuple[Discrepancy, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Table:
        columns = {column.name for column in self.columns}
        labels = [row.label for row in self.rows]
        if len(set(labels)) != len(labels):
            raise ValueError("labels that differ")
        for row in self.rows:
            if not row.values or not set(row.values) <= columns:
                raise ValueError(f"values of {row.label} for columns {', '.join(sorted(columns))}")
            if (row.cell.attack is None) != (self.kind == "settings"):
                raise ValueError(f"an attack for {row.label}, in a table of results and only there")
        return self

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def select(self, labels: Sequence[str] = ()) -> tuple[Row, ...]:
        """The rows that labels name, in the order of the table; all without labels.

        A label, in any case, names its row; a part of a label names every row whose label contains it.

        Raises:
            UnknownComponentError: a label names no row.
        """
        chosen: set[str] = set()
        for label in labels:
            wanted = label.casefold().strip()
            exact = {row.label for row in self.rows if row.label.casefold() == wanted}
            found = exact or {row.label for row in self.rows if wanted and wanted in row.label.casefold()}
            if not found:
                raise UnknownComponentError(f"row of {self.name}", label, [row.label for row in self.rows])
            chosen |= found
        return tuple(row for row in self.rows if not labels or row.label in chosen)


def names() -> list[str]:
    """Names of all tables, by paper and number."""
    return [table.name for table in tables()]


@cache
def tables() -> tuple[Table, ...]:
    """All tables, by paper and number."""
    found = [parse(file.read_text(encoding="utf-8"), file.name) for file in _sources()]
    return tuple(sorted(found, key=lambda table: (table.paper, table.number)))


def load(name: str) -> Table:
    """One table.

    Raises:
        UnknownComponentError: there is no such table.
    """
    for table in tables():
        if table.name == name:
            return table
    raise UnknownComponentError("table", name, names())


def parse(text: str, source: str) -> Table:
    """A table from TOML.

    Raises:
        InvalidConfigurationError: the text is no table; the message names the entry.
    """
    try:
        return Table.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as cause:
        raise InvalidConfigurationError(f"{source} cannot be read as TOML: {cause}") from None
    except ValidationError as cause:
        problem = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the table"
        reason = problem["msg"].removeprefix("Value error, ")
        raise InvalidConfigurationError(f"expected {where} of {source} to be right, got an error: {reason}") from None


def matrices(
    table: Table,
    budget: Budget = "quick",
    seeds: Iterable[int] = (0,),
    *,
    labels: Sequence[str] = (),
    dataset: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Matrix, ...]:
    """What to run for a table: one matrix per data set and attack, so that their stages are shared.

    Args:
        table: of results.
        budget: how much of the published effort.
        seeds: one cell each.
        labels: rows to run; all by default.
        dataset: a data set to run on in place of the published ones; the numbers then compare with nothing published.
        settings: `scope.field` to value; the table fixes the defense's fields.

    Raises:
        InvalidConfigurationError: the table holds settings, none of the rows can be run, or `settings` touches a
            defense.
        UnknownComponentError: a label names no row.
    """
    require_results(table)
    rows = [row for row in table.select(labels) if dataset or not row.not_runnable]
    if not rows:
        raise InvalidConfigurationError(f"no chosen row of {table.name} can be run: {table.rows[0].not_runnable}")
    fixed = {"defense", *(row.cell.defense for row in rows)}
    for path in settings or {}:
        if path.partition(".")[0] in fixed:
            raise InvalidConfigurationError(
                f"expected --set to leave defenses alone, which {table.name} fixes, got {path}; use `privbench run`"
            )
    groups: dict[tuple[str, str], list[Selection]] = {}
    for row in rows:
        assert row.cell.attack is not None
        defenses = groups.setdefault((dataset or row.cell.dataset, row.cell.attack), [])
        if row.cell.choose() not in defenses:
            defenses.append(row.cell.choose())
    evaluators = tuple(Selection(name) for name in table.evaluators)
    return tuple(
        Matrix(
            datasets=(Selection(data),),
            defenses=tuple(defenses),
            attacks=(Selection(attack),),
            evaluators=evaluators,
            seeds=tuple(dict.fromkeys(seeds)),
            budget=budget,
            settings=dict(settings or {}),
        )
        for (data, attack), defenses in groups.items()
    )


def require_results(table: Table) -> None:
    """Refuse tables of settings.

    Raises:
        InvalidConfigurationError: the table holds hyper-parameters.
    """
    if table.kind == "settings":
        raise InvalidConfigurationError(
            f"expected a table of results, got {table.name}, which holds hyper-parameters; "
            f"`privbench paper show {table.name}` shows what is used, {' and '.join(table.about)} can be run"
        )


def _sources() -> list[Any]:
    return [entry for entry in files(__package__).iterdir() if entry.name.endswith(".toml")]
