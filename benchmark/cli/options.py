"""Options that several commands share, one by one and in groups."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from .output import echo

if TYPE_CHECKING:
    from ..analysis.record_set import Records
    from ..pipeline.cell import Cell
    from ..pipeline.plan import Plan
    from ..runners.outcome import Outcome

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
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
Seeds = Annotated[list[int], typer.Option("--seed", help="Seed; repeat for several. Default: 0.")]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", help="Share of the published effort: smoke, quick (default) or full.")
]
Settings = Annotated[
    list[str],
    typer.Option("--set", metavar="SCOPE.FIELD=VALUE", help="Set a field, e.g. attack.iterations=500; repeat."),
]
INTERRUPTED = "privbench: interrupted; run the same command again to resume"


MatrixFile = Annotated[Path | None, typer.Argument(metavar="[MATRIX.toml]", help="A file that lists the cells.")]
Datasets = Annotated[list[str], typer.Option("--dataset", "-d", help="Data set; repeat for a matrix. Default: digits.")]
Defenses = Annotated[list[str], typer.Option("--defense", help="Defense, or NAME:PRESET; repeat for a matrix.")]
Attacks = Annotated[list[str], typer.Option("--attack", help="Attack, or NAME:PRESET; repeat for a matrix.")]
Evaluators = Annotated[list[str], typer.Option("--evaluator", help="Evaluator; repeat. Default: all that apply.")]
Controls = Annotated[
    bool | None,
    typer.Option("--controls/--no-controls", help="Also attack a placebo, trained on permuted labels. Default: yes."),
]
Sandbox = Annotated[
    bool | None,
    typer.Option(
        "--sandbox/--no-sandbox",
        envvar="PRIVBENCH_SANDBOX",
        help="Isolate every attack (or none). Default: attacks of plugins.",
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Parallel stages on a machine, sharing its CPU.")]
Runner = Annotated[Literal["local", "ray"], typer.Option("--runner", help="local: this machine; ray: a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="HOST:PORT of the Ray cluster; default: RAY_ADDRESS, the one here, or a new one."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of a stage; default: those of the machine / --jobs."),
]
StageTimeout = Annotated[
    float | None, typer.Option("--stage-timeout", metavar="SECONDS", help="Stop a stage that takes longer.")
]


@dataclass(frozen=True)
class CellOptions:
    """Options of `run` and `plan` that select cells."""

    matrix: MatrixFile = None
    dataset: Datasets = field(default_factory=list)
    defense: Defenses = field(default_factory=list)
    attack: Attacks = field(default_factory=list)
    evaluator: Evaluators = field(default_factory=list)
    seed: Seeds = field(default_factory=list)
    budget: BudgetOption = None
    setting: Settings = field(default_factory=list)
    controls: Controls = None
    sandbox: Sandbox = None

    def cells(self) -> list[Cell]:
        """The selected cells; options replace values of the matrix file.

        Raises:
            PrivbenchError: a file, name or setting is wrong.
        """
        from ..pipeline.cell import Selection
        from ..pipeline.matrix import Matrix, parse_settings
        from ..pipeline.matrix_file import read_matrix

        def selected(names: list[str], default: tuple[Selection, ...]) -> tuple[Selection, ...]:
            return tuple(Selection.parse(name) for name in names) or default

        if self.matrix is not None:
            base = read_matrix(self.matrix)
        else:
            if not (self.defense and self.attack):
                raise typer.BadParameter("give --defense and --attack, or a matrix file")
            base = Matrix((Selection("digits"),), (), ())
        return Matrix(
            datasets=selected(self.dataset, base.datasets),
            defenses=selected(self.defense, base.defenses),
            attacks=selected(self.attack, base.attacks),
            evaluators=selected(self.evaluator, base.evaluators or ()) or None,
            seeds=tuple(dict.fromkeys(self.seed)) or base.seeds,
            budget=self.budget or base.budget,  # type: ignore[arg-type]
            settings={**base.settings, **parse_settings(self.setting)},
            controls=base.controls if self.controls is None else self.controls,
            sandbox=self.sandbox,
        ).cells()


@dataclass(frozen=True)
class RunOptions:
    """Options of `run`, `plan` and `paper run`: folders, and where and how stages are computed."""

    data: DataFolder = None
    store: StoreFolder = None
    results: ResultsFolder = None
    device: DeviceOption = "auto"
    jobs: Jobs = 1
    runner: Runner = "local"
    address: Address = None
    threads: Threads = None
    stage_timeout: StageTimeout = None
    as_json: Json = False

    def __post_init__(self) -> None:
        if self.stage_timeout is not None and not 0 < self.stage_timeout < float("inf"):
            raise typer.BadParameter(
                f"expected --stage-timeout to be a number of seconds above 0, got {self.stage_timeout:g}"
            )

    def execute(self, cells: list[Cell]) -> tuple[Plan, Outcome, Records]:
        """Run cells and show the progress on stderr; after Ctrl-C, exit with 130."""
        from ..analysis.record_set import Records
        from ..api import execute
        from ..core.paths import data_root, results_root, store_root
        from ..pipeline.preflight import unavailable_scores
        from .progress import Display

        for gap in unavailable_scores(cells):
            if "`privbench " in gap.reason:  # a command can fix it, which is best known before the run
                echo(f"n/a: {gap}", err=True)

        try:
            with Display() as display:
                plan, outcome, written = execute(
                    cells,
                    data=data_root(self.data),
                    store=store_root(self.store),
                    results=results_root(self.results),
                    device=self.device,
                    runner=self.runner,
                    address=self.address,
                    jobs=self.jobs,
                    threads=self.threads,
                    stage_timeout=self.stage_timeout,
                    listener=display,
                )
        except KeyboardInterrupt:
            echo(INTERRUPTED, err=True)
            raise typer.Exit(130) from None
        return plan, outcome, Records(tuple(record for record, _ in written), tuple(path for _, path in written))


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter whose type is a group above by the options of the group, in the signature Typer reads."""
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, kind in get_type_hints(command, include_extras=True).items():
        if not dataclasses.is_dataclass(kind):
            if name != "return":
                default = inspect.signature(command).parameters[name].default
                parameters.append(_parameter(name, kind, default))
            continue
        groups[name] = kind
        hints = get_type_hints(kind, include_extras=True)
        for option in dataclasses.fields(kind):
            default = option.default if option.default is not dataclasses.MISSING else []
            parameters.append(_parameter(option.name, hints[option.name], default))

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{option.name: values.pop(option.name) for option in dataclasses.fields(kind)})
        command(**values)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
