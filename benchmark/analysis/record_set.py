"""Sets of records: load them from a folder, and aggregate them as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IncompatibleRecordError, MissingDataError, PrivbenchError
from ..files.png import MAX_BYTES, fault_of_png
from ..files.untrusted import read_bounded
from ..records.record import Choice, Record, RecordedScore, read
from ..records.submitted import Provenance, is_of_submission, load, results_of, submissions
from ..records.verification import LEVELS, Level, lowest
from .aggregate import Row, Section, sections
from .excess import Controls, Excess
from .precedence import Candidate, choose

if TYPE_CHECKING:
    import pandas as pd

    from .standings import Ranking, Standing


#: Columns of `Records.leaderboard`.
_LEADERBOARD = (
    *("protocol", "budget", "dataset", "score", "better", "defense", "rank", "rank_low", "rank_high", "group"),
    *("worst", "low", "high", "n", "basis", "covers", "best_known", "best_known_attack", "utility_score", "utility"),
    *("utility_reference", "utility_distance", "suite", "attacks", "missing", "seeds", "level", "control", "reason"),
)


@dataclass(frozen=True)
class Records:
    """Loaded records.

    Args:
        items: the records, those of the results folder itself first; of several, the first counts.
        paths: file of each record.
        problems: one sentence for each file that cannot be read.
        sources: provenance of submitted records, by key.
        left_out: one sentence for each record that does not count beside others; see `analysis.precedence`.
    """

    items: tuple[Record, ...] = ()
    paths: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    sources: Mapping[str, Provenance] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.items)

    def level(self, records: Iterable[Record]) -> Level:
        """Return the lowest level of verification among some of the records."""
        found = (self.sources.get(record.key) for record in records)
        return lowest(LEVELS[0] if source is None else source.level for source in found)

    def picture(self, record: Record) -> bytes | None:
        """Return the PNG of a record; `None` if it has none, or the file is missing or invalid.

        The picture of a verified record is drawn from its evidence.
        """
        if record.picture is None:
            return None
        source = self.sources.get(record.key)
        try:
            if source is not None:
                content = source.picture.png() if source.picture else None
            else:
                content = read_bounded(self._path_of[record.key].parent / record.picture, MAX_BYTES, follow_links=True)
        except PrivbenchError:
            return None
        return None if content is None or fault_of_png(content) else content

    @cached_property
    def _path_of(self) -> dict[str, Path]:
        """Paths by key; the first path for duplicate keys."""
        return {item.key: path for item, path in zip(reversed(self.items), reversed(self.paths), strict=True)}

    def sections(self) -> tuple[Section, ...]:
        """Aggregate the records over seeds, by protocol, budget and data set configuration."""
        return tuple(sections(self.items, self.unverified))

    @property
    def unverified(self) -> frozenset[str]:
        """Keys of the records of submissions that nobody verified."""
        return frozenset(key for key, source in self.sources.items() if source.level == LEVELS[0])

    def long_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per record and score, and per evaluator that did not run; see `long`."""
        found = self._excess()
        return [row for record in self.items for row in _long_rows(record, self._origin(record), found[record.key])]

    def _excess(self) -> dict[str, dict[str, Excess]]:
        """Scores of each record minus the placebo's, by key and name."""
        found: dict[str, dict[str, Excess]] = {}
        for section in self.sections():
            controls = Controls(section)
            for row in section.rows:
                found |= {record.key: controls.of_record(row, record) for record in row.records}
        return found

    def _origin(self, record: Record) -> dict[str, str]:
        source = self.sources.get(record.key)
        return {"level": self.level([record]), "submission": source.submission if source else ""}

    def wide_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per row of each section; see `wide`."""
        return [_wide_row(section, row, self.level(row.records)) for section in self.sections() for row in section.rows]

    def leaderboard_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per section, leakage score and defense; see `leaderboard`."""
        from .ranking import rankings

        return [
            _leaderboard_row(section, ranking, standing, self.level(standing.records))
            for section in self.sections()
            for ranking in rankings(section)
            for standing in ranking.standings
        ]

    def leaderboard(self) -> pd.DataFrame:
        """Return one row per section, leakage score and defense, in the order of the rankings; see `docs/ranking.md`.

        `worst` is the worst case over the `attacks` of the `suite`, with the 95 % interval from `low` to `high`, which
        covers what `covers` says. `rank_low` and `rank_high` are the lowest and the highest rank of the rank set.
        Defenses that share a letter of `group` are not distinguishable. `best_known` is the strongest attack on record.
        `utility_distance` tells how much lower the utility is than that of `utility_reference`. `level` is the lowest
        level of verification of the records. A defense without a rank has a `reason`; `control` marks the placebo.
        """
        import pandas as pd

        frame = pd.DataFrame(self.leaderboard_rows(), columns=list(_LEADERBOARD))
        return frame.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))

    def long(self) -> pd.DataFrame:
        """Return one row per record and score, with mappings and per-class values as JSON text.

        An evaluator that did not run has a row without a score name, with the reason. `excess` is the score minus the
        placebo's under the same attack, with its 95 % interval.
        """
        import pandas as pd

        return pd.DataFrame(self.long_rows())

    def wide(self) -> pd.DataFrame:
        """Return one row per protocol, budget, data set, defense and attack, aggregated over seeds.

        Each score `s` has the columns `s` (mean), `s.seeds`, `s.n`, `s.std`, `s.low`, `s.high`, `s.chance` and
        `s.reason`; missing values stay missing.
        """
        import pandas as pd

        return pd.DataFrame(self.wide_rows())


def load_records(path: str | Path, *, strict: bool = False) -> Records:
    """Read a results folder, a folder of records or one record.

    The folder's submissions are read from its subfolder `submissions`, and their verifications from `verifications`.

    Args:
        path: a record, or a folder, which is searched recursively, or only in its subfolder `records` if it has one.
        strict: raise an error for the first file that cannot be read, rather than list it in `problems`.

    Raises:
        IncompatibleRecordError: the file, or with `strict` a file in the folder, is not a record of a known schema.
        MissingDataError: `path` does not exist.
    """
    path = Path(path)
    if path.is_file():
        record = read(path)
        (found,) = choose([Candidate(record, record, path)]).items
        return Records((found.record,), (path,))
    if not path.is_dir():
        raise MissingDataError(
            f"expected {path} to be a results folder or a record, found none; create one with `privbench run`"
        )
    candidates: list[Candidate] = []
    problems: list[str] = []
    folders = submissions(path)
    root = path / "records" if (path / "records").is_dir() else path
    if folders != [path]:
        for file in sorted(file for file in root.rglob("*.json") if not file.name.startswith(".")):
            if not is_of_submission(file, path, folders):
                try:
                    record = read(file)
                    candidates.append(Candidate(record, record, file))
                except IncompatibleRecordError as problem:
                    problems.append(str(problem))
    for folder in folders:
        for each in load(folder, results_of(folder, path)):
            if isinstance(each, str):
                problems.append(each)
            else:
                candidates.append(Candidate(each.record, each.claim, each.path, each.source))
    chosen = choose(candidates)
    problems += chosen.conflicts
    if strict and problems:
        raise IncompatibleRecordError(problems[0])
    return Records(
        tuple(each.record for each in chosen.items),
        tuple(each.path for each in chosen.items),
        tuple(problems),
        {each.record.key: each.source for each in chosen.items if each.source is not None},
        chosen.left_out,
    )


def _long_rows(record: Record, origin: Mapping[str, str], excess: Mapping[str, Excess]) -> Iterator[dict[str, Any]]:
    cell = record.cell
    shared = {"protocol": record.protocol, "budget": cell.budget, "seed": cell.seed}
    for kind in ("dataset", "defense", "attack"):
        choice: Choice = getattr(cell, kind)
        shared |= {kind: choice.name, f"{kind}_version": choice.version, f"{kind}_distribution": choice.distribution}
        shared[f"{kind}_fields"] = json.dumps(choice.fields, sort_keys=True)
    last = {"key": record.key, "created": record.created, **origin}
    for name, score in sorted(record.scores.items()):
        yield shared | _long_score(name, score, record.evaluator(name)) | _long_excess(excess.get(name)) | last
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


def _long_excess(excess: Excess | None) -> dict[str, Any]:
    low, high = (excess and excess.interval) or (None, None)
    return {"excess": excess and excess.value, "excess_low": low, "excess_high": high}


def _wide_row(section: Section, row: Row, level: Level) -> dict[str, Any]:
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


def _leaderboard_row(section: Section, ranking: Ranking, standing: Standing, level: Level) -> dict[str, Any]:
    worst, utility, best, match = standing.worst, standing.utility, standing.best, standing.match
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
        "covers": worst.covers,
        "best_known": None if best is None else best.value,
        "best_known_attack": None if best is None else best.attack,
        "utility_score": None if utility is None else utility.definition.name,
        "utility": None if utility is None else utility.value,
        "utility_reference": match.reference or None,
        "utility_distance": match.distance,
        "suite": ranking.rules.suite,
        "attacks": ", ".join(ranking.attacks),
        "missing": ", ".join(standing.missing),
        "seeds": standing.seeds,
        "level": level,
        "control": standing.is_control,
        "reason": standing.reason or None,
    }
