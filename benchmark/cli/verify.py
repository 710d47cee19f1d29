"""`privbench verify`: check the claims of a submission."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidConfigurationError, PrivbenchError
from . import options
from .output import echo, print_json, print_problems

if TYPE_CHECKING:
    from ..records.record import Record
    from ..submissions.rerun import RerunConfig
    from ..submissions.verify import SubmissionResult


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the submission.")],
    rerun: Annotated[bool, typer.Option("--rerun", help="Also run every cell again, with an empty store.")] = False,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Write the result for the report, to verifications/ of the results that contain the submission.",
        ),
    ] = False,
    by: Annotated[str | None, typer.Option("--by", help="Name of the verifier; with --write.")] = None,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    results: options.ResultsFolder = None,
    device: Annotated[str, typer.Option("--device", help="Device for --rerun; the rest runs on the CPU.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check a submission and recompute its scores.

    The scores are computed from its files with your own judges. Nothing in the submission is executed. Each problem is
    printed in one sentence, and the exit code is then 1.
    """
    if write != bool(by and by.strip()):
        raise InvalidConfigurationError("expected --write together with --by NAME, got one of them; give both")
    folder = folder.expanduser()
    try:
        found = _verify(folder, data, store, device if rerun else None)
        problems = found.problems
    except PrivbenchError as problem:
        if not as_json:
            raise
        found, problems = None, (str(problem),)
    if as_json:
        print_json(_facts(folder, found, problems))
    elif found is not None:
        _print(found)
    if problems or found is None:
        raise typer.Exit(1)
    if write and by:
        _write(found, by, results, folder)


def _verify(folder: Path, data: Path | None, store: str | None, device: str | None) -> SubmissionResult:
    from ..core.paths import data_root, store_root

    root = store_root(store)
    import torch

    from ..pipeline.session import Session
    from ..store.store import Store
    from ..submissions.rerun import RerunConfig
    from ..submissions.verify import verify_submission

    fresh: RerunConfig | None = None
    if device is not None:
        fresh = RerunConfig(Path(f"{root.root}-reruns"), data_root(data), device)
    session = Session(Store(root), data_root(data), torch.device("cpu"))
    return verify_submission(folder, session, fresh, begin=_say)


def _say(number: int, total: int, record: Record) -> None:
    """Show on stderr which record is checked."""
    echo(f"[{number}/{total}] {_title(record)}", err=True)


def _title(record: Record) -> str:
    cell = record.cell
    return f"{record.protocol} {cell.defense.name} {cell.attack.name} {cell.budget} seed {cell.seed}"


def _facts(folder: Path, found: SubmissionResult | None, problems: tuple[str, ...]) -> dict[str, Any]:
    records = {} if found is None else {key: each.model_dump(mode="json") for key, each in found.records.items()}
    sha256 = None if found is None else found.submission.sha256
    return {"submission": str(folder), "sha256": sha256, "problems": list(problems), "records": records}


def _print(found: SubmissionResult) -> None:
    for record in found.submission.records:
        checked = found.records.get(record.key)
        echo(f"{checked.level if checked else 'refused'}: {_title(record)}")
        if checked is None:
            continue
        outcomes = [score.outcome for score in checked.scores.values()]
        counts = [f"{outcomes.count(kind)} {kind}" for kind in ("equal", "within", "not compared") if kind in outcomes]
        if counts:
            echo(f"  scores: {', '.join(counts)}")
        for name, score in checked.scores.items():
            if score.reason:
                echo(f"  {name} was not compared: {score.reason}")
        for note in checked.notes:
            echo(f"  {note}")
    print_problems(found.problems)


def _write(found: SubmissionResult, by: str, results: Path | None, folder: Path) -> None:
    from ..core.paths import results_root
    from ..records.submission import FOLDER
    from ..records.verification import write_verification
    from ..submissions.verify import make_verification

    inside = folder.absolute().parent
    root = inside.parent if inside.name == FOLDER else results_root(results)
    echo(str(write_verification(make_verification(found, " ".join(by.split())), root, found.submission.name)))
