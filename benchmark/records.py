"""Records together: a folder of them, loaded, and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .aggregate import Row, Section, sections
from .errors import IncompatibleRecordError, MissingDataError
from .record import SCHEMA, Choice, Record, RecordedScore, read, save

if TYPE_CHECKING:
    import pandas as pd

    from .ranking import Ranking, Standing

__all__ = ["SCHEMA", "Record", "Records", "load_records", "read", "save"]

_MAX_PICTURE = 4 << 20
#: How every PNG begins.
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_LEADERBOARD = [
    *("protocol", "budget", "dataset", "score", "better", "defense", "rank", "rank_low", "rank_high", "group"),
    *("worst", "low", "high", "n", "basis", "utility_score", "utility", "attacks", "missing", "seeds", "reason"),
]


@dataclass(frozen=True)
class Records:
    """Loaded records.

    Args:
        items: the records, in order of path.
        paths: where each was read.
        problems: one sentence per file that could not be read.
    """

    items: tuple[Record, ...] = ()
    paths: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.items)

    def picture(self, record: Record) -> bytes | None:
        """The PNG beside a record; `None` if it names none or the file is missing or no PNG of at most 4 MiB."""
        if record.picture is None:
            return None
        try:
            with (self._path_of[record.key].parent / record.picture).open("rb") as file:
                content = file.read(_MAX_PICTURE + 1)
        except OSError:
            return None
        return content if content.startswith(_PNG) and 24 <= len(content) <= _MAX_PICTURE else None

    @cached_property
    def _path_of(self) -> dict[str, Path]:
        """By key; of several records with one key, the first."""
        return {item.key: path for item, path in zip(reversed(self.items), reversed(self.paths), strict=True)}

    def sections(self) -> tuple[Section, ...]:
        """Aggregated over seeds, by protocol, budget and data set configuration."""
        return tuple(sections(self.items))

    def long_rows(self) -> list[dict[str, Any]]:
        """One dictionary per record and score, and per evaluator that did not run."""
        return [row for record in self.items for row in _long(record)]

    def wide_rows(self) -> list[dict[str, Any]]:
        """One dictionary per row of each section; see `wide`."""
        return [_wide(section, row) for section in self.sections() for row in section.rows]

    def leaderboard_rows(self) -> list[dict[str, Any]]:
        """One dictionary per section, leakage score and defense; see `leaderboard`."""
        from .ranking import rankings

        return [
            _standing(section, ranking, standing)
            for section in self.sections()
            for ranking in rankings(section)
            for standing in ranking.standings
        ]

    def leaderboard(self) -> pd.DataFrame:
        """One row per section, leakage score and defense, in the order of the rankings; see `docs/ranking.md`.

        `worst` is the worst case over `attacks`, from `low` to `high` (95 %); `rank_low` and `rank_high` are the ranks
        that cannot be ruled out; defenses that share a letter of `group` cannot be told apart. A defense without a
        rank has a `reason`.
        """
        import pandas as pd

        frame = pd.DataFrame(self.leaderboard_rows(), columns=_LEADERBOARD)
        return frame.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))

    def long(self) -> pd.DataFrame:
        """One row per record and score; mappings and per-class values as JSON text.

        An evaluator that did not run has a row without a score name, with the reason.
        """
        import pandas as pd

        return pd.DataFrame(self.long_rows())

    def wide(self) -> pd.DataFrame:
        """One row per protocol, budget, data set, defense and attack, aggregated over seeds.

        Each score `s` has the columns `s` (mean), `s.seeds`, `s.n`, `s.std`, `s.low`, `s.high`, `s.chance` and
        `s.reason`; what is missing stays missing.
        """
        import pandas as pd

        return pd.DataFrame(self.wide_rows())


def load_records(path: str | Path, *, strict: bool = False) -> Records:
    """Read a results folder, a folder of records or one record.

    Args:
        path: what to read; a folder is searched with its subfolders, or only its `records` folder if it has one.
        strict: raise at the first file that cannot be read, rather than name it in `problems`.

    Raises:
        IncompatibleRecordError: the file, or with `strict` a file in the folder, is not a record of a known schema.
        MissingDataError: there is nothing at `path`.
    """
    path = Path(path)
    if path.is_file():
        return Records((read(path),), (path,))
    if not path.is_dir():
        raise MissingDataError(f"expected {path} to be a folder of results or a record; make one with `privbench run`")
    root = path / "records" if (path / "records").is_dir() else path
    found: dict[str, tuple[Record, Path]] = {}
    problems = []
    for file in sorted(file for file in root.rglob("*.json") if not file.name.startswith(".")):
        try:
            record = read(file)
            if record.key in found and found[record.key][0] != record:
                other = found[record.key][1]
                raise IncompatibleRecordError(f"{file} and {other} differ and have the same key; remove one of them")
            found.setdefault(record.key, (record, file))
        except IncompatibleRecordError as problem:
            if strict:
                raise
            problems.append(str(problem))
    items = tuple(record for record, _ in found.values())
    return Records(items, tuple(file for _, file in found.values()), tuple(problems))


def _long(record: Record) -> Iterator[dict[str, Any]]:
    cell = record.cell
    shared = {"protocol": record.protocol, "budget": cell.budget, "seed": cell.seed}
    for kind in ("dataset", "defense", "attack"):
        choice: Choice = getattr(cell, kind)
        shared |= {kind: choice.name, f"{kind}_version": choice.version, f"{kind}_distribution": choice.distribution}
        shared[f"{kind}_fields"] = json.dumps(choice.fields, sort_keys=True)
    last = {"key": record.key, "created": record.created}
    for name, score in sorted(record.scores.items()):
        yield shared | _long_score(name, score, record.evaluator(name)) | last
    for evaluator, reason in sorted(record.not_run.items()):
        yield shared | {"value": None, "n": 0, "reason": reason, "evaluator": evaluator} | last


def _long_score(name: str, score: RecordedScore, evaluator: Choice) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    definition = score.definition
    return {
        "score": name,
        "title": definition.title,
        "measures": definition.measures,
        "better": definition.better,
        "unit": definition.unit,
        "value": score.value,
        "n": score.n,
        "low": low,
        "high": high,
        "chance": score.chance,
        "reason": score.reason,
        "intervals": json.dumps(score.intervals, sort_keys=True),
        "spreads": json.dumps(score.spreads, sort_keys=True),
        "per_class": None if score.per_class is None else json.dumps(score.per_class),
        "notes": json.dumps(score.notes, ensure_ascii=False),
        "evaluator": evaluator.name,
        "evaluator_version": evaluator.version,
        "evaluator_fields": json.dumps(evaluator.fields, sort_keys=True),
    }


def _wide(section: Section, row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {
        "protocol": section.protocol,
        "budget": section.budget,
        "dataset": section.dataset,
        "defense": row.defense,
        "attack": row.attack,
        "evaluators": row.evaluators,
        "seeds": len(row.seeds),
    }
    for name, score in row.scores.items():
        low, high = score.interval or (None, None)
        parts: dict[str, Any] = {"seeds": score.seeds, "n": score.n, "std": score.std, "low": low, "high": high}
        parts |= {"chance": score.chance, "reason": score.reason or None}
        values |= {name: score.value} | {f"{name}.{part}": value for part, value in parts.items()}
    return values


def _standing(section: Section, ranking: Ranking, standing: Standing) -> dict[str, Any]:
    worst, utility = standing.worst, standing.utility
    rank_low, rank_high = standing.rank_interval or (None, None)
    low, high = worst.interval or (None, None)
    return {
        "protocol": section.protocol,
        "budget": section.budget,
        "dataset": section.dataset,
        "score": ranking.score.name,
        "better": ranking.score.better,
        "defense": standing.defense,
        "rank": standing.rank,
        "rank_low": rank_low,
        "rank_high": rank_high,
        "group": standing.group,
        "worst": worst.value,
        "low": low,
        "high": high,
        "n": worst.n,
        "basis": worst.basis,
        "utility_score": None if utility is None else utility.definition.name,
        "utility": None if utility is None else utility.value,
        "attacks": ", ".join(ranking.attacks),
        "missing": ", ".join(standing.missing),
        "seeds": standing.seeds,
        "reason": worst.reason or None,
    }
