"""`privbench figure`: pictures of records as PNG and SVG."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidConfigurationError, MissingDataError, StorageError
from . import options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.record_set import Records
    from ..records.record import Record

app = typer.Typer(no_args_is_help=True, help="Pictures of records: reconstructions, tsne, tradeoff.")

RecordPaths = Annotated[
    list[Path], typer.Argument(metavar="RECORD...", help="Records, or folders of them, such as results.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File ending in .png or .svg, or a name for both. [default: the figure's name]"),
]
AsGiven = Annotated[bool, typer.Option("--as-given", help="Keep the order of the files instead of sorting by fields.")]
#: More rows or panels than this are not readable.
MOST = 100
_OTHER_FORMATS = (".pdf", ".eps", ".ps", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".html")


@app.command()
def reconstructions(
    record: RecordPaths,
    columns: Annotated[int, typer.Option("--columns", min=1, max=100, help="Images in a row.")] = 8,
    with_private_images: Annotated[
        bool, typer.Option("--with-private-images", help="Add a row of the private images; reads the data set.")
    ] = False,
    as_given: AsGiven = False,
    out: Out = None,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
) -> None:
    """Show what attacks reconstructed.

    A row a record, the same private images (or labels) in the same columns.
    """
    paths = _files(out, "reconstructions")
    records, problems = _load(record)
    chosen = _chosen(records, "evidence", as_given)
    from ..core.paths import data_root, store_root
    from ..pipeline import record_artifacts
    from ..report.figures import labels
    from ..report.figures.image_figures import Strip, grid
    from ..store.store import Store

    layout = Store(store_root(store))
    found = [record_artifacts.reconstructions(each, layout) for each in chosen]
    keys = record_artifacts.columns(chosen, found, columns)
    about = found[0].about
    strips = [Strip(name, each.of(keys)) for name, each in zip(labels.labels(chosen), found, strict=True)]
    if with_private_images:
        private = record_artifacts.originals(chosen, about, keys, data_root(data))
        strips.insert(0, Strip(("original",) if about == "items" else ("private image",), private))
    else:
        typer.echo("the private images are left out; --with-private-images shows them", err=True)
    headings = [f"label {key}" for key in keys] if about == "labels" else []
    caption = labels.shared(chosen)
    _save(grid(strips, caption, headings=headings, first_is_original=with_private_images), paths)
    _complain(problems)


@app.command()
def tsne(
    record: RecordPaths,
    attribute: Annotated[
        list[str],
        typer.Option("--attribute", help="Colour by it; repeat for two. [default: Smiling and Eyeglasses, if known]"),
    ] = [],  # noqa: B006
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Cut layer. [default: the attack's; the last latent for one that has none]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the optimiser.")] = 0,
    as_given: AsGiven = False,
    out: Out = None,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    device: options.DeviceOption = "auto",
) -> None:
    """Show encodings in the plane.

    A panel a record: latents of private test images at the cut layer, coloured by attributes or by label.
    """
    paths = _files(out, "tsne")
    if len(attribute) > 2:
        raise InvalidConfigurationError(f"expected --attribute at most twice, got {', '.join(attribute)}")
    records, problems = _load(record)
    chosen = _chosen(records, "evidence", as_given)
    from ..core.paths import data_root, store_root
    from ..pipeline.session import Session
    from ..report.figures import labels
    from ..report.figures.image_figures import plane
    from ..report.figures.tsne import clouds
    from ..store.store import Store
    from ..training.device import choose_device

    session = Session(Store(store_root(store)), data_root(data), choose_device(device))
    found, groups = clouds(chosen, session, attribute, layer, seed)
    _save(plane(found, groups, (*labels.shared(chosen), "t-SNE of private test images")), paths)
    _complain(problems)


@app.command()
def tradeoff(
    record: RecordPaths,
    utility: Annotated[
        str | None, typer.Option("--utility", help="Score drawn up. [default: mcc, else accuracy]")
    ] = None,
    leakage: Annotated[
        str | None, typer.Option("--leakage", help="Score drawn across. [default: ssim, else attack_acc]")
    ] = None,
    out: Out = None,
) -> None:
    """Show utility against leakage.

    A panel an attack; bars are 95 % intervals, points of one defense are joined in the order of the field that varies.
    Reads records alone.
    """
    paths = _files(out, "tradeoff")
    records, problems = _load(record)
    from ..report.figures.tradeoff import tradeoff as compare
    from ..report.figures.tradeoff_figure import draw

    found = compare(records, utility, leakage)
    _save(draw(found), paths)
    for sentence in found.left_out:
        typer.echo(f"left out: {sentence}", err=True)
    _complain(problems)


def _files(out: Path | None, name: str) -> list[Path]:
    """Where to write, decided before anything is computed."""
    out = out or Path(name)
    if out.suffix.lower() in (".png", ".svg"):
        return [out]
    if out.suffix.lower() in _OTHER_FORMATS:
        raise InvalidConfigurationError(f"expected --out to end in .png or .svg, or in neither for both, got {out}")
    return [out.with_name(f"{out.name}.{form}") for form in ("png", "svg")]


def _load(paths: Sequence[Path]) -> tuple[Records, list[str]]:
    """The records of all paths, each once, and one sentence per file that cannot be read."""
    from ..analysis.record_set import Records, load_records
    from ..errors import IncompatibleRecordError

    found: dict[str, tuple[Record, Path]] = {}
    problems: list[str] = []
    for path in paths:
        records = load_records(path)
        problems += records.problems
        if not records and not records.problems:
            raise MissingDataError(f"expected {path} to have records, found none; make one with `privbench run`")
        for record, file in zip(records, records.paths, strict=True):
            known, other = found.setdefault(record.key, (record, file))
            if known != record:
                raise IncompatibleRecordError(f"{file} and {other} differ and have the same key; give one of them")
    if not found:
        raise IncompatibleRecordError("; ".join(dict.fromkeys(problems)))
    items, files = zip(*found.values(), strict=True)
    return Records(items, files), problems


def _chosen(records: Records, role: str, as_given: bool) -> list[Record]:
    """One record of each artifact of a role, in order."""
    from ..report.figures import labels

    ordered = list(records) if as_given else labels.arranged(records.items)
    found: dict[str, Record] = {}
    for record in ordered:
        found.setdefault(record.artifacts[role].key if role in record.artifacts else record.key, record)
    if len(found) > MOST:
        raise InvalidConfigurationError(f"expected at most {MOST} records in a figure, got {len(found)}; give fewer")
    return list(found.values())


def _save(figure: Figure, paths: Sequence[Path]) -> None:
    from ..report.figures.style import encode

    for path in paths:
        _write(path, encode(figure, "png" if path.suffix.lower() == ".png" else "svg"))
        typer.echo(str(path))


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {reason}; choose another --out") from cause


def _complain(problems: Sequence[str]) -> None:
    from ..report.formatting import plain

    for problem in problems:
        typer.echo(f"privbench: {plain(problem)}", err=True)
    if problems:
        raise typer.Exit(1)
