"""Cells, made of choices: configured components that a user selected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.config import Budget, StageKind
from ..records.record import NotRun
from ..registry import Kind, find, load


@dataclass(frozen=True)
class Selection:
    """A component by name, with what the user sets.

    Args:
        name: registered name.
        preset: named settings, or `None` for those of the data set.
        fields: values by field; nested fields as nested mappings.
        where: the part of the command or file that it comes from, for messages.
    """

    name: str
    preset: str | None = None
    fields: Mapping[str, Any] | None = None
    where: str = ""

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Parse `name` or `name:preset`."""
        name, _, preset = text.partition(":")
        return cls(name.strip(), preset.strip() or None)


@dataclass(frozen=True)
class Choice:
    """A configured component with the name it was found under."""

    kind: Kind
    name: str
    distribution: str
    component: Any

    def identity(self, stage: StageKind | None = None, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what decides the result of `stage` (of any stage by default).

        Args:
            stage: kind of a stage.
            files: hashes of files by name; by default they are computed.

        Raises:
            MissingDataError: a file that the component or one of its networks reads is missing.
        """
        networks, files = self.networks(stage), self.files(stage) if files is None else dict(files)
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": type(self.component).version,
            "fields": self.component.config(stage),
            **({"files": files} if files else {}),
            **({"networks": networks} if networks else {}),
        }

    def networks(self, stage: StageKind | None = None) -> dict[str, dict[str, Any]]:
        """Return what identifies the embedders and perceptual networks that `stage` uses, by name."""
        found: dict[str, dict[str, Any]] = {}
        for kind, name in self.component.networks(stage):
            facts = {"kind": kind, "distribution": find(kind, name).distribution, "version": load(kind, name).version}
            found[_unused(name, facts, found, kind)] = facts
        return found

    def files(self, stage: StageKind | None = None) -> dict[str, str]:
        """Return the SHA-256 of files that the component and its networks read in `stage`, by name; not the data set's.

        Raises:
            MissingDataError: one of them is missing.
        """
        found = dict(self.component.files(stage))
        for kind, name in self.component.networks(stage):
            for file, sha256 in load(kind, name).files().items():
                found[_unused(file, sha256, found, f"{kind} {name}")] = sha256
        return found


def _unused(name: str, value: Any, found: Mapping[str, Any], owner: str) -> str:
    """Return a name for a value: its own, or one with its owner where something else has its own."""
    return name if found.get(name, value) == value else f"{owner}: {name}"


@dataclass(frozen=True)
class Cell:
    """Data set x defense x attack x seed, under a budget."""

    dataset: Choice
    defense: Choice
    attack: Choice
    evaluators: tuple[Choice, ...]
    seed: int
    budget: Budget
    #: Evaluators that do not run, with the reason.
    not_run: tuple[tuple[str, NotRun], ...] = ()

    @property
    def title(self) -> str:
        """Short name for progress and messages."""
        return f"{self.dataset.name} {self.defense.name} {self.attack.name} seed {self.seed}"

    def unavailable(self) -> tuple[tuple[str, str], ...]:
        """Return the evaluators that apply to the attack and cannot run, with the reasons."""
        return tuple((name, why.reason) for name, why in self.not_run if why.code == "unavailable")

    def identity(self) -> dict[str, Any]:
        """Return everything that identifies the cell."""
        return {
            "dataset": self.dataset.identity(),
            "defense": self.defense.identity(),
            "attack": self.attack.identity(),
            "evaluators": [choice.identity() for choice in self.evaluators],
            "seed": self.seed,
            "budget": self.budget,
        }
