"""Records together: a folder of them, loaded, and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IncompatibleRecordError, MissingDataError
from ..files.png import MAX_BYTES, fault_of_png
from ..records.record import Choice, Record, RecordedScore, read
from ..records.submitted import Provenance, is_stray, load, submissions
from ..records.verification import LEVELS, Level, lowest
from .aggregate import Row, Section, sections

if TYPE_CHECKING:
    import pandas as pd

    from .ranking import Ranking, Standing


_LEADERBOARD = [
    *("protocol", "budget", "dataset", "score", "better", "defense", "rank", "rank_low", "rank_high", "group"),
    *(
        "worst",
        "low",
        "high",
        "n",
        "basis",
        "utility_score",
        "utility",
        "attacks",
        "missing",
        "seeds",
        "level",
        "reason",
    ),
]


@dataclass(frozen=True)
class Records:
    """Loaded records.

    Args:
        items: the records, in order of path.
        paths: where each was read.
        problems: one sentence per file that could not be read.
        sources: of records that were submitted, by key.
    """

    items: tuple[Record, ...] = ()
    paths: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    sources: Mapping[str, Provenance] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.items)

    def level(self, records: Iterable[Record]) -> Level:
        """The lowest level of verification among some of the records; see `verification_levels`."""
        found = (self.sources.get(record.key) for record in records)
        return lowest(LEVELS[0] if source is None else source.level for source in found)

    def picture(self, record: Record) -> bytes | None:
        """The PNG beside a record; `None` if it names none or the file is missing or no PNG that can be shown."""
        if record.picture is None:
            return None
        try:
            with (self._path_of[record.key].parent / record.picture).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError:
            return None
        return None if fault_of_png(content) else content

    @cached_property
    def _path_of(self) -> dict[str, Path]:
        """By key; of several records with one key, the first."""
        return {item.key: path for item, path in zip(reversed(self.items), reversed(self.paths), strict=True)}

    def sections(self) -> tuple[Section, ...]:
        """Aggregated over seeds, by protocol, budget and data set configuration."""
        return tuple(sections(self.items))

    def long_rows(self) -> list[dict[str, Any]]:
        """One dictionary per record and score, and per evaluator that did not run."""
        return [row for record in self.items for row in _long(record, self._origin(record))]

    def _origin(self, record: Record) -> dict[str, str]:
        source = self.sources.get(record.key)
        return {"level": self.level([record]), "submission": source.submission if source else ""}

    def wide_rows(self) -> list[dict[str, Any]]:
        """One dictionary per row of each section; see `wide`."""
        return [_wide(section, row, self.level(row.records)) for section in self.sections() for row in section.rows]

    def leaderboard_rows(self) -> list[dict[str, Any]]:
        """One dictionary per section, leakage score and defense; see `leaderboard`."""
        from .ranking import rankings

        return [
            _standing(section, ranking, standing, self.level(record for row in standing.rows for record in row.records))
            for section in self.sections()
            for ranking in rankings(section)
            for standing in ranking.standings
        ]

    def leaderboard(self) -> pd.DataFrame:
        """One row per section, leakage score and defense, in the order of the rankings; see `docs/ranking.md`.

        `worst` is the worst case over `attacks`, from `low` to `high` (95 %); `rank_low` and `rank_high` are the ranks
        that cannot be ruled out; defenses that share a letter of `group` cannot be told apart; `level` is the lowest
        level of verification behind it. A defense without a rank has a `reason`.
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

    Submissions in its folder `submissions` count as well, each with what `verifications` says of it.

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
    loaded = _Loaded(strict)
    folders = submissions(path)
    root = path / "records" if (path / "records").is_dir() else path
    if folders != [path]:
        for file in sorted(file for file in root.rglob("*.json") if not file.name.startswith(".")):
            if not is_stray(file, path, folders):
                loaded.add_file(file)
    for folder in folders:
        loaded.add_submission(folder)
    return loaded.records()


class _Loaded:
    """What was read so far; of records with one key the first counts, and others must equal it."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._found: dict[str, tuple[Record, Path]] = {}
        self._problems: list[str] = []
        self._sources: dict[str, Provenance] = {}

    def add_file(self, file: Path) -> None:
        try:
            self._add(read(file), file)
        except IncompatibleRecordError as problem:
            self._refuse(str(problem))

    def add_submission(self, folder: Path) -> None:
        for each in load(folder):
            if isinstance(each, str):
                self._refuse(each)
                continue
            try:
                self._add(each.record, each.path)
            except IncompatibleRecordError as problem:
                self._refuse(str(problem))
                continue
            known = self._sources.get(each.record.key)
            if known is None or LEVELS.index(known.level) < LEVELS.index(each.source.level):
                self._sources[each.record.key] = each.source

    def _add(self, record: Record, file: Path) -> None:
        if record.key in self._found and self._found[record.key][0] != record:
            other = self._found[record.key][1]
            raise IncompatibleRecordError(f"{file} and {other} differ and have the same key; remove one of them")
        self._found.setdefault(record.key, (record, file))

    def _refuse(self, problem: str) -> None:
        if self._strict:
            raise IncompatibleRecordError(problem)
        self._problems.append(problem)

    def records(self) -> Records:
        items = tuple(record for record, _ in self._found.values())
        paths = tuple(file for _, file in self._found.values())
        return Records(items, paths, tuple(self._problems), self._sources)


def _long(record: Record, origin: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    cell = record.cell
    shared = {"protocol": record.protocol, "budget": cell.budget, "seed": cell.seed}
    for kind in ("dataset", "defense", "attack"):
        choice: Choice = getattr(cell, kind)
        shared |= {kind: choice.name, f"{kind}_version": choice.version, f"{kind}_distribution": choice.distribution}
        shared[f"{kind}_fields"] = json.dumps(choice.fields, sort_keys=True)
    last = {"key": record.key, "created": record.created, **origin}
    for name, score in sorted(record.scores.items()):
        yield shared | _long_score(name, score, record.evaluator(name)) | last
    for evaluator, why in sorted(record.not_run.items()):
        yield shared | {"value": None, "n": 0, "reason": why.reason, "evaluator": evaluator} | last


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


def _wide(section: Section, row: Row, level: Level) -> dict[str, Any]:
    values: dict[str, Any] = {
        "protocol": section.protocol,
        "budget": section.budget,
        "dataset": section.dataset,
        "defense": row.defense,
        "attack": row.attack,
        "evaluators": row.evaluators,
        "seeds": len(row.seeds),
        "level": level,
    }
    for name, score in row.scores.items():
        low, high = score.interval or (None, None)
        parts: dict[str, Any] = {"seeds": score.seeds, "n": score.n, "std": score.std, "low": low, "high": high}
        parts |= {"chance": score.chance, "reason": score.reason or None}
        values |= {name: score.value} | {f"{name}.{part}": value for part, value in parts.items()}
    return values


def _standing(section: Section, ranking: Ranking, standing: Standing, level: Level) -> dict[str, Any]:
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
        "level": level,
        "reason": worst.reason or None,
    }
