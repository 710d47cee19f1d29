"""Published tables as data.

A table is a TOML file next to this module. It has the values as printed, and their known discrepancies with sources.
This module does not import torch.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from .. import registry
from ..analysis.row_labels import flat
from ..core.canonical import canonical
from ..core.config import Budget, Configuration
from ..errors import InvalidConfigurationError, UnknownComponentError
from ..pipeline.cell import Selection
from ..pipeline.resolve import resolve

Unit = Literal["per cent", "distance", "similarity", "decibel", "ratio", "weight"]


class Discrepancy(Configuration):
    """Error in a table, or a difference between the paper, its code and this implementation."""

    what: str = Field(description="the discrepancy, in one or two sentences", min_length=20)
    where: str = Field(description="its source", min_length=5)


class Column(Configuration):
    """One printed quantity.

    A column of results names the score that measures the same quantity. A column of settings is named after a field of
    the defense.
    """

    name: str
    title: str
    unit: Unit
    decimals: int = Field(2, ge=0, le=6, description="decimals of the printed values")
    better: Literal["higher", "lower"] | None = Field(None, description="direction that a defender prefers")
    attack: str | None = Field(None, description="attack of the row that gives the values; the first by default")
    score: str | None = Field(None, description="the score with the same definition")
    factor: float = Field(
        1.0, gt=0, description="from the recorded score to the printed quantity, if it is not its unit"
    )
    otherwise: str | None = Field(None, description="a score with another definition, shown if `score` is missing")
    incomparable: str = Field("", description="why recorded values are not comparable; empty if they are")
    spread: str | None = Field(None, description="our spread with the same meaning as the printed +-")
    spread_meaning: str = Field("", description="meaning of the printed +-")


class Published(Configuration):
    """A printed value, and the printed number after +-."""

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
    """Configuration that reproduces a row: a preset of the defense, or fields on top of the data set's preset.

    With a preset, the row fixes all fields of the defense; without one, only the fields that it sets. The data set
    selects the presets of the attacks.
    """

    protocol: str = Field(pattern=r"^[a-z0-9_]+/v[0-9]+$", description="the only protocol with comparable numbers")
    defense: str
    preset: str | None = Field(None, description="preset of the defense")
    attacks: tuple[str, ...] = Field(
        (), description="empty in tables of settings; a file may give a single one as `attack`"
    )
    fields: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="fields that the row sets, by `dataset`, `defense` or name of an attack"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_one_attack(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "attack" in given and "attacks" not in given:
            return {name: value for name, value in given.items() if name != "attack"} | {"attacks": [given["attack"]]}
        return given

    @model_validator(mode="after")
    def _fields_have_a_component(self) -> Reproduction:
        unknown = set(self.fields) - {"dataset", "defense", *self.attacks}
        if unknown:
            raise ValueError(f"fields of the data set, the defense or an attack of the row, not of {min(unknown)}")
        return self

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.protocol.partition("/")[0]

    def defense_selection(self) -> Selection:
        """Select the defense with its preset and the row's fields."""
        return Selection(self.defense, self.preset, self.fields.get("defense"))

    def dataset_selection(self, substitute: str | None = None) -> Selection:
        """Select the data set, or its substitute, with the row's fields."""
        return Selection(substitute or self.dataset, None, self.fields.get("dataset"))

    def attack_selection(self, name: str) -> Selection:
        """Select one of the attacks with the row's fields."""
        return Selection(name, None, self.fields.get(name))

    @property
    def stored_name(self) -> str:
        """Name of the defense's fields in `configurations.json`."""
        fields = self.fields.get("defense", {})
        return canonical([self.defense, self.preset or "", fields])

    def configuration(self, budget: Budget) -> dict[str, Any]:
        """Return the fields of the defense under a budget, without presets that are named after data sets."""
        stored = _configurations().get(self.stored_name)
        return dict(stored[budget]["fields"]) if stored else self.compute_configuration(budget)

    def fields_set_by_dataset(self, budget: Budget) -> set[str]:
        """Return the dotted names of the defense's fields that data sets and presets such as `mnist@quick` may set."""
        stored = _configurations().get(self.stored_name)
        return set(stored[budget]["by_dataset"]) if stored else self.compute_fields_set_by_dataset(budget)

    def compute_configuration(self, budget: Budget) -> dict[str, Any]:
        """Return what `configuration` returns, from the defense itself, whose module imports torch."""
        found: dict[str, Any] = resolve("defense", self.defense_selection(), budget, {}).component.config()
        return found

    def compute_fields_set_by_dataset(self, budget: Budget) -> set[str]:
        """Return what `fields_set_by_dataset` returns, from the defense itself, whose module imports torch."""
        presets = registry.load("defense", self.defense).presets.items()
        found = [flat(dict(fields)) for name, fields in presets if name.endswith(f"@{budget}")]
        return {"recipe.max_steps", *(name for fields in found for name in fields)}


class Row(Configuration):
    """One printed setting."""

    label: str
    printed: str = Field("", description="start of its line in the paper; the label by default")
    values: dict[str, Published]
    cell: Reproduction
    not_runnable: str = Field("", description="why the row cannot be run, in one sentence; empty if it can")
    needs: str = Field(
        "",
        pattern=r"^(dataset\.\w+)?$",
        description="a setting such as `dataset.extra` that the user must give to run the row",
    )
    approximation: str = Field("", description="how the row is approximated, so that values are not compared; or empty")
    discrepancies: tuple[Discrepancy, ...] = ()

    def reason_not_runnable(self, substitute: str | None = None, given: Collection[str] = ()) -> str:
        """Explain in one sentence why the row cannot be run with the settings `given`; empty if it can."""
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
        citation: citation of the paper, on one line.
        caption: our summary of what the table shows.
        kind: `results`, or `settings` for hyperparameters.
        evaluators: evaluators that give the scores of the columns.
        about: tables of results that use the settings of this table.
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
        default_factory=dict, description="fields of the data set that comparable records must have under every budget"
    )
    about: tuple[str, ...] = ()
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    discrepancies: tuple[Discrepancy, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Table:
        columns = {column.name for column in self.columns}
        labels = [row.label for row in self.rows]
        if len(set(labels)) != len(labels):
            raise ValueError("unique labels")
        for row in self.rows:
            if not row.values or not set(row.values) <= columns:
                raise ValueError(f"values of {row.label} for columns {', '.join(sorted(columns))}")
            if bool(row.cell.attacks) != (self.kind == "results"):
                raise ValueError(f"an attack for {row.label} in a table of results, and none in a table of settings")
            unassigned = [name for name in row.values if self.column(name).attack not in (None, *row.cell.attacks)]
            if unassigned:
                raise ValueError(f"an attack for {row.label} that gives {', '.join(unassigned)}")
            if row.needs and not row.not_runnable:
                raise ValueError(f"a reason in not_runnable for {row.label}, which explains what it needs")
        return self

    def column(self, name: str) -> Column:
        """Return the column with a name."""
        return next(column for column in self.columns if column.name == name)

    def values(self, row: Row, attack: str) -> dict[str, Published]:
        """Return the printed values that one of a row's attacks gives, by column."""
        first = row.cell.attacks[0]
        return {name: value for name, value in row.values.items() if (self.column(name).attack or first) == attack}

    def varied_fields(self, scope: str) -> set[str]:
        """Return the fields of the data set (`dataset`), the defense or an attack (its name) that rows set."""
        user_fields = {row.needs.partition(".")[2] for row in self.rows if row.needs and scope == "dataset"}
        return user_fields.union(*(row.cell.fields.get(scope, {}) for row in self.rows))

    def select(self, labels: Sequence[str] = ()) -> tuple[Row, ...]:
        """Return the rows with the given labels, in the order of the table; all rows without labels.

        Labels are case-insensitive. A part of a label selects every row whose label contains it.

        Raises:
            UnknownComponentError: no row has a given label.
        """
        selected: set[str] = set()
        for label in labels:
            wanted = label.casefold().strip()
            exact = {row.label for row in self.rows if row.label.casefold() == wanted}
            found = exact or {row.label for row in self.rows if wanted and wanted in row.label.casefold()}
            if not found:
                raise UnknownComponentError(f"row of {self.name}", label, [row.label for row in self.rows])
            selected |= found
        return tuple(row for row in self.rows if not labels or row.label in selected)


def names() -> list[str]:
    """Return the names of all tables, ordered by paper and number."""
    return [table.name for table in tables()]


@cache
def _configurations() -> dict[str, Any]:
    """Read the fields of the rows' defenses, which `make docs-tables` writes and a test compares with the code."""
    file = resources.files(__package__) / "configurations.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


@cache
def tables() -> tuple[Table, ...]:
    """Return all tables, ordered by paper and number."""
    files = [file for file in resources.files(__package__).iterdir() if file.name.endswith(".toml")]
    found = [parse(file.read_text(encoding="utf-8"), file.name) for file in files]
    return tuple(sorted(found, key=lambda table: (table.paper, table.number)))


def load(name: str) -> Table:
    """Return the table with a name.

    Raises:
        UnknownComponentError: there is no such table.
    """
    for table in tables():
        if table.name == name:
            return table
    raise UnknownComponentError("table", name, names())


def parse(text: str, source: str) -> Table:
    """Parse a table from TOML.

    Raises:
        InvalidConfigurationError: the text is not a table; the message names the invalid entry.
    """
    try:
        return Table.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as cause:
        raise InvalidConfigurationError(f"{source} cannot be read as TOML: {cause}") from None
    except ValidationError as cause:
        problem = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the table"
        reason = problem["msg"].removeprefix("Value error, ")
        raise InvalidConfigurationError(f"expected {where} of {source} to be valid, got an error: {reason}") from None


def require_results(table: Table) -> None:
    """Reject a table of settings.

    Raises:
        InvalidConfigurationError: the table has hyperparameters.
    """
    if table.kind == "settings":
        raise InvalidConfigurationError(
            f"expected a table of results, got {table.name}, which has hyperparameters; show it with "
            f"`privbench paper show {table.name}`, or run {' and '.join(table.about)}"
        )
