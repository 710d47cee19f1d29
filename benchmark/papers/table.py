"""Published tables as data.

A table is one TOML file beside this module. Values are as printed; what is known to be wrong with them stands beside
them, with its source. Nothing here imports torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from .. import registry
from ..analysis.aggregate import flat
from ..core.config import Budget, Configuration
from ..errors import InvalidConfigurationError, UnknownComponentError
from ..pipeline.cell import Selection
from ..pipeline.resolve import resolve

Unit = Literal["per cent", "distance", "similarity", "decibel", "ratio", "weight"]


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
    decimals: int = Field(2, ge=0, le=6, description="as printed")
    better: Literal["higher", "lower"] | None = Field(None, description="what a defender prefers")
    attack: str | None = Field(None, description="which of a row's attacks gives it; the first by default")
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


class Reproduction(Configuration):
    """What reproduces a row: the defense's named preset, or fields on top of what the data set picks.

    With a preset all fields of the defense belong to the row, without one those that the row sets. The data set picks
    the attacks' presets.
    """

    protocol: str = Field(pattern=r"^[a-z0-9_]+/v[0-9]+$", description="the numbers of no other protocol compare")
    defense: str
    preset: str | None = Field(None, description="of the defense")
    attacks: tuple[str, ...] = Field((), description="none in tables of settings; a file may name one as `attack`")
    fields: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="what the row sets: by `dataset`, `defense` or name of an attack"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_one_attack(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "attack" in given and "attacks" not in given:
            return {name: value for name, value in given.items() if name != "attack"} | {"attacks": [given["attack"]]}
        return given

    @model_validator(mode="after")
    def _sets_what_it_runs(self) -> Reproduction:
        strangers = set(self.fields) - {"dataset", "defense", *self.attacks}
        if strangers:
            raise ValueError(f"fields of the data set, the defense or an attack of the row, not of {min(strangers)}")
        return self

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.protocol.partition("/")[0]

    def choose(self) -> Selection:
        """The defense with its preset and the row's fields."""
        return Selection(self.defense, self.preset, self.fields.get("defense"))

    def choose_data(self, substitute: str | None = None) -> Selection:
        """The data set, or the one that stands in for it, with the row's fields."""
        return Selection(substitute or self.dataset, None, self.fields.get("dataset"))

    def choose_attack(self, name: str) -> Selection:
        """One of the attacks with the row's fields."""
        return Selection(name, None, self.fields.get(name))

    def configuration(self, budget: Budget) -> dict[str, Any]:
        """The fields of the defense under a budget, but for what presets named after data sets add."""
        found: dict[str, Any] = resolve("defense", self.choose(), budget, {}).component.config()
        return found

    def decided_by_data(self, budget: Budget) -> set[str]:
        """The fields of the defense, dotted, that a preset such as `mnist@quick` may set under a budget."""
        presets = registry.load("defense", self.defense).presets.items()
        found = [flat(dict(fields)) for name, fields in presets if name.endswith(f"@{budget}")]
        return {name for fields in found for name in fields}


class Row(Configuration):
    """One printed setting."""

    label: str
    printed: str = Field("", description="how its line begins in the paper; the label by default")
    values: dict[str, Published]
    cell: Reproduction
    not_runnable: str = Field("", description="why it cannot be run, in one sentence; empty if it can")
    needs: str = Field(
        "",
        pattern=r"^(dataset\.\w+)?$",
        description="a setting such as `dataset.extra` that only its user can give, with which it can be run",
    )
    discrepancies: tuple[Discrepancy, ...] = ()

    def obstacle(self, substitute: str | None = None, given: Collection[str] = ()) -> str:
        """Why it cannot be run with the settings `given`, in one sentence; empty if it can."""
        if self.not_runnable and (not self.needs or self.needs not in given):
            return self.not_runnable
        if substitute:
            known = registry.load("dataset", substitute).model_fields
            missing = [name for name in self.cell.fields.get("dataset", {}) if name not in known]
            if missing:
                return f"Data set {substitute} has no field {', '.join(missing)}, which the row sets."
        return ""


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
    requires: dict[str, Any] = Field(
        default_factory=dict, description="fields of the data set without which, under any budget, no number compares"
    )
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
            if bool(row.cell.attacks) != (self.kind == "results"):
                raise ValueError(f"an attack for {row.label}, in a table of results and only there")
            homeless = [name for name in row.values if self.column(name).attack not in (None, *row.cell.attacks)]
            if homeless:
                raise ValueError(f"an attack for {row.label} that gives {', '.join(homeless)}")
            if row.needs and not row.not_runnable:
                raise ValueError(f"a sentence for {row.label} that says what it needs")
        return self

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def values(self, row: Row, attack: str) -> dict[str, Published]:
        """The printed values that one of a row's attacks gives, by column."""
        first = row.cell.attacks[0]
        return {name: value for name, value in row.values.items() if (self.column(name).attack or first) == attack}

    def varied(self, scope: str) -> set[str]:
        """The fields of the data set (`dataset`), the defense or an attack (its name) that tell rows apart."""
        brought = {row.needs.partition(".")[2] for row in self.rows if row.needs and scope == "dataset"}
        return brought.union(*(row.cell.fields.get(scope, {}) for row in self.rows))

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
