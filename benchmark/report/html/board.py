"""The HTML report: every page of it as text, from records alone.

Records are data of unknown origin: everything is escaped, and the policy of each page allows no request to elsewhere
and no script or style but the report's own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ...analysis.flags import EXPLANATIONS
from ...analysis.record_set import Records
from ...core.config import BUDGETS
from ...records.verification import EXPLANATIONS as LEVELS
from .. import formatting
from . import definitions, svg
from .cell_pages import CellPage, cells, mebibytes, payload, seconds
from .leaderboards import SectionView, boards
from .permalinks import cell_names
from .published_values import publications
from .urls import Places

_TEMPLATES = Path(__file__).parent / "templates"
_FOLDER_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)
_NO_IMAGES: Mapping[str, bytes | str] = {}


def folder(records: Records, private: Mapping[str, bytes | str] = _NO_IMAGES) -> Iterator[tuple[str, bytes]]:
    """The files of a report as path and content; equal records give equal bytes.

    Args:
        records: what to show.
        private: by key the PNG that `private_images` made or why there is none; empty if none were asked for.
    """
    report = _Report(records, private, Places(cell_names(records)))
    for name in ("index", "definitions", "published", "compare"):
        yield f"{name}.html", report.page(name)
    below = report.places.below()
    for board in report.boards:
        for leaderboard in board.leaderboards:
            if not leaderboard.inside:
                content = report.render("ranking.html.j2", below, board=board, leaderboard=leaderboard)
                yield f"boards/{board.anchor}-{leaderboard.score.name}.html", content
    for cell in report.cells(below):
        yield f"cells/{cell.name}.html", report.render("cell.html.j2", below, cell=cell)
        yield f"cells/{cell.name}.js", f"privbenchCell({payload(cell, below)});\n".encode()
    for key, content in report.pictures.items():
        yield f"pictures/{report.places.names[key]}.png", content
    for key, found in private.items():
        if isinstance(found, bytes):
            yield f"private/{report.places.names[key]}.png", found
    for name in ("board.css", "board.js"):
        yield name, (_TEMPLATES / name).read_bytes()


def single(records: Records, private: Mapping[str, bytes | str] = _NO_IMAGES) -> str:
    """The report as one page that needs no other file; equal records give equal text."""
    report = _Report(records, private, Places(cell_names(records), single=True))
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("board.css", "board.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    content = report.render(
        "single.html.j2",
        report.places,
        page="index",
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        cells=report.cells(report.places),
        payload=lambda cell, places: Markup(payload(cell, places)),
        **report.everything,
    )
    return content.decode()


def _source_hash(text: str) -> str:
    """As a content security policy names an inline source."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


class _Report:
    """What several pages show, computed once."""

    def __init__(self, records: Records, private: Mapping[str, bytes | str], places: Places) -> None:
        self.records, self.private, self.places = records, private, places
        self.boards: list[SectionView] = boards(records.sections(), records.level)
        found = ((record.key, records.picture(record)) for record in records)
        self.pictures = {key: content for key, content in found if content is not None}
        self._environment = _environment()

    def page(self, name: str) -> bytes:
        """One of the pages that are not about a single cell."""
        return self.render(f"{name}.html.j2", self.places, page=name, **self.everything)

    def cells(self, places: Places) -> Iterator[CellPage]:
        """Every cell, section by section."""
        for board in self.boards:
            yield from cells(board, places, self.pictures, self.private, self.records.sources)

    def render(self, template: str, places: Places, **values: Any) -> bytes:
        """A page as seen from one place."""
        values = {"page": "cell", "policy": _FOLDER_POLICY, "private": bool(self.private)} | values
        return self._environment.get_template(template).render(places=places, **values).encode()

    @cached_property
    def everything(self) -> dict[str, Any]:
        """What the index, the definitions and the published values show."""
        runs = [record.cell for record in self.records]
        budgets = {run.budget for run in runs}
        return {
            "boards": self.boards,
            "pictures": self.pictures,
            "count": len(self.records),
            "newest": max((record.created for record in self.records), default=""),
            "problems": self.records.problems,
            "definitions": definitions.entries(self.records),
            "explanations": EXPLANATIONS,
            "levels": LEVELS,
            "publications": publications(self.records),
            "names": {
                "defense": sorted({run.defense.name for run in runs}),
                "attack": sorted({run.attack.name for run in runs}),
                "budget": [budget for budget in BUDGETS if budget in budgets],
            },
        }


def _breakable(text: str, limit: int) -> Markup:
    """Text that may be broken after each `_`."""
    return Markup("_<wbr>").join(formatting.plain(text, limit).split("_"))


class _Once:
    """Calls a macro once for equal arguments: components and curves are the same in many cells."""

    def __init__(self) -> None:
        self._found: dict[Any, Any] = {}

    def __call__(self, macro: Any, *arguments: Any) -> Any:
        key = (macro, *arguments)
        if key not in self._found:
            self._found[key] = macro(*arguments)
        return self._found[key]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Most texts of a cell are those of many others.
    plain = lru_cache(4096)(lambda text, limit=400: escape(formatting.plain(text, limit)))
    environment.filters |= {"plain": plain, "number": formatting.number, "between": formatting.format_interval}
    environment.filters |= {"breakable": _breakable, "heading": formatting.heading, "json": formatting.json_text}
    environment.filters |= {"mebibytes": mebibytes, "seconds": seconds}
    environment.globals |= {"once": _Once(), "charts": svg, "legend": formatting.LEGEND, "unit_of": formatting.unit_of}
    environment.globals |= {"arrows": formatting.ARROWS, "shared_chance": formatting.shared_chance}
    return environment
