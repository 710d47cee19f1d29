"""Published tables beside our records, ready for a template."""

from dataclasses import dataclass

from ...analysis.record_set import Records
from ...papers.comparison import ComparedRow, ComparedValue, compare
from ...papers.table import tables


@dataclass(frozen=True)
class PublishedValue:
    """One printed number beside ours, as text."""

    column: str
    published: str
    ours: str
    interval: str
    seeds: str
    difference: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class PublishedRow:
    """A printed row beside our records of it; `cells` are their keys and seeds."""

    compared: ComparedRow
    cells: tuple[tuple[str, int], ...]
    deviations: str
    values: tuple[PublishedValue, ...]


@dataclass(frozen=True)
class PublishedTable:
    """A published table of results; `missing` are its rows without records."""

    name: str
    caption: str
    citation: str
    link: str
    rows: tuple[PublishedRow, ...]
    missing: tuple[str, ...]
    orders: tuple[str, ...]


def published_tables(records: Records) -> list[PublishedTable]:
    """Every published table of results, with the rows for which there are records."""
    seeds = {record.key: record.cell.seed for record in records}
    found = []
    for table in tables():
        if table.kind == "results":
            comparison = compare(table, records)
            rows = tuple(_row(row, seeds) for row in comparison.lines)
            about = (table.name, table.caption, table.citation, table.link)
            orders = tuple(
                f"{order.column} ({order.attack}, {order.protocol}, {order.budget}): {order.summary()}"
                for order in comparison.orders
            )
            found.append(PublishedTable(*about, rows, comparison.missing, orders))
    return found


def _row(row: ComparedRow, seeds: dict[str, int]) -> PublishedRow:
    cells = tuple((key, seeds[key]) for key in row.keys)
    return PublishedRow(row, cells, ", ".join(row.deviations), tuple(_value(value) for value in row.entries))


def _value(value: ComparedValue) -> PublishedValue:
    digits = value.decimals
    spread = "" if value.published_spread is None else f" ± {value.published_spread:.{digits}f}"
    interval = value.interval and f"[{value.interval[0]:.{digits}f}, {value.interval[1]:.{digits}f}]"
    unit = " %" if value.unit == "per cent" else ""
    return PublishedValue(
        column=f"{value.column}{unit}",
        published=f"{value.published:.{digits}f}{spread}",
        ours="–" if value.ours is None else f"{value.ours:.{digits}f}",
        interval=interval or "",
        seeds=str(value.seeds or "–"),
        difference="" if value.difference is None else f"{value.difference:+.{digits}f}".replace("-", "−"),
        verdict=value.finding,
        reason="" if value.is_effort else value.reason,
    )
