"""Pages of the HTML report as text, computed from records alone.

Records are untrusted: everything is escaped, and each page's content security policy allows no request to another site
and no script or style but the report's own.
"""

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
from ...core.text import count
from ...records.verification import EXPLANATIONS as LEVELS
from .. import formatting
from . import charts, tradeoff_svg
from .cell_pages import CellPage, cell_pages, comparison_json, format_duration, format_memory
from .definitions import definition_rows
from .leaderboards import SectionView, section_views
from .permalinks import cell_names
from .published_values import published_tables
from .urls import Urls

_TEMPLATES = Path(__file__).parent / "templates"
_FOLDER_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)
_NO_IMAGES: Mapping[str, bytes | str] = {}


def render_folder(records: Records, private: Mapping[str, bytes | str] = _NO_IMAGES) -> Iterator[tuple[str, bytes]]:
    """Render the files of a report as path and content; equal records give equal bytes.

    Args:
        records: to show.
        private: PNG of private images, or the reason why there is none, by key; empty to show none.
    """
    report = _Report(records, private, Urls(cell_names(records)))
    for name in ("index", "definitions", "published", "compare"):
        yield f"{name}.html", report.render(f"{name}.html.j2", report.urls, page=name, **report.shared_values)
    urls = report.urls.from_subfolder()
    for view in report.views:
        for leaderboard in view.leaderboards:
            if not leaderboard.on_index:
                content = report.render("ranking.html.j2", urls, view=view, leaderboard=leaderboard)
                yield f"boards/{view.anchor}-{leaderboard.score.name}.html", content
    for cell in report.cells(urls):
        yield f"cells/{cell.name}.html", report.render("cell.html.j2", urls, cell=cell)
        yield f"cells/{cell.name}.js", f"privbenchCell({comparison_json(cell, urls)});\n".encode()
    for key, content in report.pictures.items():
        yield f"pictures/{urls.names[key]}.png", content
    for key, picture in private.items():
        if isinstance(picture, bytes):
            yield f"private/{urls.names[key]}.png", picture
    for name in ("board.css", "board.js"):
        yield name, (_TEMPLATES / name).read_bytes()


def render_single_page(records: Records, private: Mapping[str, bytes | str] = _NO_IMAGES) -> str:
    """Render the report as one page that needs no other file; equal records give equal text."""
    report = _Report(records, private, Urls(cell_names(records), single=True))
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("board.css", "board.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    content = report.render(
        "single.html.j2",
        report.urls,
        page="index",
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        cells=report.cells(report.urls),
        comparison_json=lambda cell: Markup(comparison_json(cell, report.urls)),
        **report.shared_values,
    )
    return content.decode()


def _source_hash(text: str) -> str:
    """The name of an inline source in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


class _Report:
    """Views that several pages show, computed once."""

    def __init__(self, records: Records, private: Mapping[str, bytes | str], urls: Urls) -> None:
        self.records, self.private, self.urls = records, private, urls
        self.views: list[SectionView] = section_views(records.sections(), records.level)
        pictures = ((record.key, records.picture(record)) for record in records)
        self.pictures = {key: content for key, content in pictures if content is not None}
        self._environment = _environment()

    def cells(self, urls: Urls) -> Iterator[CellPage]:
        """Every cell, section by section."""
        for view in self.views:
            yield from cell_pages(view, urls, self.pictures, self.private, self.records.sources)

    def render(self, template: str, urls: Urls, **values: Any) -> bytes:
        """Render a page with URLs relative to it."""
        values = {"page": "cell", "policy": _FOLDER_POLICY, "private": bool(self.private)} | values
        return self._environment.get_template(template).render(urls=urls, **values).encode()

    @cached_property
    def shared_values(self) -> dict[str, Any]:
        """Values for all templates but those of a single cell or leaderboard."""
        cells = [record.cell for record in self.records]
        budgets = {cell.budget for cell in cells}
        unverified = self.records.unverified
        return {
            "views": self.views,
            "pictures": self.pictures,
            "records": len(self.records),
            "newest": max((record.created for record in self.records if record.key not in unverified), default=""),
            "problems": (*self.records.problems, *self.records.left_out),
            "definitions": definition_rows(self.records),
            "explanations": EXPLANATIONS,
            "levels": LEVELS,
            "published": published_tables(self.records),
            "names": {
                "defense": sorted({cell.defense.name for cell in cells}),
                "attack": sorted({cell.attack.name for cell in cells}),
                "budget": [budget for budget in BUDGETS if budget in budgets],
            },
        }


def _breakable(text: str, limit: int) -> Markup:
    """Text that may be broken after each `_`."""
    return Markup("_<wbr>").join(formatting.sanitize(text, limit).split("_"))


class _MacroCache:
    """Calls a macro once for equal arguments, because components and curves are the same in many cells."""

    def __init__(self) -> None:
        self._results: dict[Any, Any] = {}

    def __call__(self, macro: Any, *arguments: Any) -> Any:
        key = (macro, *arguments)
        if key not in self._results:
            self._results[key] = macro(*arguments)
        return self._results[key]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        # Most texts occur in many cells.
        "sanitize": lru_cache(4096)(lambda text, limit=400: escape(formatting.sanitize(text, limit))),
        "breakable": _breakable,
        "number": formatting.format_number,
        "interval": formatting.format_interval,
        "heading": formatting.column_heading,
        "json": formatting.json_text,
        "memory": format_memory,
        "duration": format_duration,
    }
    environment.globals |= {
        "cached": _MacroCache(),
        "count": count,
        "charts": charts,
        "svg": tradeoff_svg,
        "legend": formatting.LEGEND,
        "control_legend": formatting.CONTROL_LEGEND,
        "arrows": formatting.ARROWS,
        "unit_of": formatting.unit_of,
        "shared_chance": formatting.shared_chance,
    }
    return environment
