"""Options that several commands share, and the matrix they describe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..analysis.record_set import Records
    from ..pipeline.matrix import Matrix
    from ..records.record import Record

MatrixFile = Annotated[Path | None, typer.Argument(metavar="[MATRIX.toml]", help="A file that names the cells.")]
Datasets = Annotated[list[str], typer.Option("--dataset", "-d", help="Data set; repeat for a matrix. Default: digits.")]
Defenses = Annotated[list[str], typer.Option("--defense", help="Defense, or NAME:PRESET; repeat for a matrix.")]
Attacks = Annotated[list[str], typer.Option("--attack", help="Attack, or NAME:PRESET; repeat for a matrix.")]
Evaluators = Annotated[list[str], typer.Option("--evaluator", help="Evaluator; repeat. Default: all that apply.")]
Seeds = Annotated[list[int], typer.Option("--seed", help="Seed; repeat for a matrix. Default: 0.")]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", help="How much of the published effort: smoke, quick (default) or full.")
]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="SCOPE.FIELD=VALUE", help="Set a field, e.g. attack.iterations=500.")
]
DataFolder = Annotated[Path | None, typer.Option("--data", envvar="PRIVBENCH_DATA", help="Folder of the data sets.")]
StoreFolder = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="PRIVBENCH_STORE",
        metavar="DIR|URL",
        help="Folder of artifacts, or URL of a shared one: s3://bucket/path, file:///shared.",
    ),
]
ResultsFolder = Annotated[
    Path | None, typer.Option("--results", envvar="PRIVBENCH_RESULTS", help="Folder of records; default: results.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]


def matrix_of(
    file: Path | None,
    datasets: list[str],
    defenses: list[str],
    attacks: list[str],
    evaluators: list[str],
    seeds: list[int],
    budget: str | None,
    settings: list[str],
) -> Matrix:
    """The matrix that a command line describes; options replace what the file says.

    Raises:
        PrivbenchError: a file, name or setting is wrong.
    """
    from ..pipeline.cell import Selection
    from ..pipeline.matrix import Matrix, parse_settings
    from ..pipeline.matrix_file import read_matrix

    def chosen(names: list[str], usual: tuple[Selection, ...]) -> tuple[Selection, ...]:
        return tuple(Selection.parse(name) for name in names) or usual

    if file is not None:
        base = read_matrix(file)
    else:
        if not (defenses and attacks):
            raise typer.BadParameter("give --defense and --attack, or a matrix file")
        base = Matrix((Selection("digits"),), (), ())
    return Matrix(
        datasets=chosen(datasets, base.datasets),
        defenses=chosen(defenses, base.defenses),
        attacks=chosen(attacks, base.attacks),
        evaluators=chosen(evaluators, base.evaluators or ()) or None,
        seeds=tuple(dict.fromkeys(seeds)) or base.seeds,
        budget=budget or base.budget,  # type: ignore[arg-type]
        settings={**base.settings, **parse_settings(settings)},
    )


def records_of(argument: str, cell: str, results: Path) -> Records:
    """The records that an argument means: a record, a folder of them, or the beginning of a key in the results.

    Args:
        argument: its name, for messages.
        cell: what the user wrote; a key is that of a record or of its target.
        results: the results folder.

    Raises:
        PrivbenchError: there is none.
    """
    from ..analysis.record_set import Records, load_records
    from ..errors import IncompatibleRecordError, MissingDataError

    path = Path(cell).expanduser()
    is_path = path.exists() or not re.fullmatch("[0-9a-f]{4,64}", cell)
    records = load_records(path if is_path else results)
    pairs = zip(records.items, records.paths, strict=True)
    found = [(record, file) for record, file in pairs if is_path or _has(record, cell)]
    if not found:
        if is_path and records.problems:
            raise IncompatibleRecordError(records.problems[0])
        where = f"a record in {path}" if is_path else f"the beginning of a key in {results}"
        raise MissingDataError(
            f"expected {argument} to be {where}, got {cell!r}; run the cell first with `privbench run`"
        )
    return Records(tuple(record for record, _ in found), tuple(file for _, file in found))


def _has(record: Record, key: str) -> bool:
    target = record.artifacts.get("target")
    return record.key.startswith(key) or (target is not None and target.key.startswith(key))
