"""`privbench figure`: figures of records as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidConfigurationError
from . import options
from .output import echo, write_output
from .record_arguments import exit_if_unreadable, load_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.record_set import Records
    from ..records.record import Record

app = typer.Typer(no_args_is_help=True, help="Figures of records: reconstructions, tsne, tradeoff.")

RecordPaths = Annotated[
    list[Path], typer.Argument(metavar="RECORD...", help="Records, or folders of records, such as results.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File ending in .png or .svg, or a name for both. [default: name of the figure]"),
]
AsGiven = Annotated[bool, typer.Option("--as-given", help="Keep the order of the files instead of sorting by fields.")]
#: Largest number of rows or panels; more are not readable.
MOST = 100
_OTHER_FORMATS = (".pdf", ".eps", ".ps", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".html")


@app.command()
def reconstructions(
    record: RecordPaths,
    columns: Annotated[int, typer.Option("--columns", min=1, max=100, help="Images in a row.")] = 8,
    with_private_images: Annotated[
        bool, typer.Option("--with-private-images", help="Add a row of the private images; reads the data set.")
    ] = False,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            help="Embedder that chooses the private images of labels. [default: facenet_vggface2 for faces, else hog]",
        ),
    ] = None,
    as_given: AsGiven = False,
    out: Out = None,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
) -> None:
    """Show the reconstructions of attacks.

    One row per record, with the same private images (or labels) in the same columns. The private images of a label are
    the two training images that are nearest to its reconstructions.
    """
    paths = _output_paths(out, "reconstructions")
    records = load_all(record)
    chosen = _select(records, "evidence", as_given)
    from ..core.paths import data_root, store_root
    from ..pipeline import record_artifacts
    from ..report.figures import labels
    from ..report.figures.image_figures import ImageRow, image_grid
    from ..store.store import Store

    opened = Store(store_root(store))
    found = [record_artifacts.reconstructions(each, opened) for each in chosen]
    keys = record_artifacts.columns(chosen, found, columns)
    about = found[0].about
    rows = [ImageRow(name, each.of(keys)) for name, each in zip(labels.record_labels(chosen), found, strict=True)]
    caption, private = labels.shared_settings(chosen), []
    if with_private_images and about == "items":
        private = [ImageRow(("original",), record_artifacts.originals(chosen, keys, data_root(data)))]
    elif with_private_images:
        embedder = embedder or record_artifacts.usual_embedder(chosen[0])
        images = record_artifacts.nearest_private(chosen, found, keys, data_root(data), embedder)
        names = ("nearest private", "second nearest")[: len(images)]
        private = [ImageRow((name,), each) for name, each in zip(names, images, strict=True)]
        caption = (*caption, f"private training images nearest in the features of {embedder}")
    else:
        echo("private images are omitted; --with-private-images shows them", err=True)
    headings = [f"label {key}" for key in keys] if about == "labels" else []
    _save(image_grid([*private, *rows], caption, headings=headings, private_rows=len(private)), paths)
    exit_if_unreadable(records.problems)


@app.command()
def tsne(
    record: RecordPaths,
    attribute: Annotated[
        list[str],
        typer.Option("--attribute", help="Attribute to colour by; repeat for two. [default: Smiling, Eyeglasses]"),
    ] = [],  # noqa: B006
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Cut layer. [default: that of the attack, else the last latent]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the optimizer.")] = 0,
    as_given: AsGiven = False,
    out: Out = None,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    device: options.DeviceOption = "auto",
) -> None:
    """Show encodings in two dimensions, by t-SNE.

    One panel per record: latents of private test images at the cut layer, coloured by attributes or by label.
    """
    paths = _output_paths(out, "tsne")
    if len(attribute) > 2:
        raise InvalidConfigurationError(f"expected --attribute at most twice, got {', '.join(attribute)}")
    records = load_all(record)
    chosen = _select(records, "evidence", as_given)
    from ..core.paths import data_root, store_root
    from ..pipeline.session import Session
    from ..report.figures import labels
    from ..report.figures.image_figures import embedding_figure
    from ..report.figures.tsne import embed_records
    from ..store.store import Store
    from ..training.device import choose_device

    session = Session(Store(store_root(store)), data_root(data), choose_device(device))
    found, groups = embed_records(chosen, session, attribute, layer, seed)
    _save(embedding_figure(found, groups, (*labels.shared_settings(chosen), "t-SNE of private test images")), paths)
    exit_if_unreadable(records.problems)


@app.command()
def tradeoff(
    record: RecordPaths,
    utility: Annotated[
        str | None, typer.Option("--utility", help="Score on the vertical axis. [default: mcc, else accuracy]")
    ] = None,
    leakage: Annotated[
        str | None, typer.Option("--leakage", help="Score on the horizontal axis. [default: ssim, else attack_acc]")
    ] = None,
    out: Out = None,
) -> None:
    """Show utility against leakage.

    One panel per attack; bars are 95 % intervals, and lines join the points of a defense in the order of the field that
    varies. Only records are read.
    """
    paths = _output_paths(out, "tradeoff")
    records = load_all(record)
    from ..report.figures.series import tradeoff_series
    from ..report.figures.tradeoff_figure import draw

    found = tradeoff_series(records, utility, leakage)
    _save(draw(found), paths)
    for reason in found.left_out:
        echo(f"omitted: {reason}", err=True)
    exit_if_unreadable(records.problems)


def _output_paths(out: Path | None, name: str) -> list[Path]:
    """Files to write, checked before anything is computed."""
    out = out or Path(name)
    if out.suffix.lower() in (".png", ".svg"):
        return [out]
    if out.suffix.lower() in _OTHER_FORMATS:
        raise InvalidConfigurationError(f"expected --out to end in .png or .svg, or in neither for both, got {out}")
    return [out.with_name(f"{out.name}.{form}") for form in ("png", "svg")]


def _select(records: Records, role: str, as_given: bool) -> list[Record]:
    """One record of each artifact of a role, in order."""
    from ..report.figures import labels

    ordered = list(records) if as_given else labels.sort_records(records.items)
    found: dict[str, Record] = {}
    for record in ordered:
        found.setdefault(record.artifacts[role].key if role in record.artifacts else record.key, record)
    if len(found) > MOST:
        raise InvalidConfigurationError(f"expected at most {MOST} records in a figure, got {len(found)}; give fewer")
    return list(found.values())


def _save(figure: Figure, paths: Sequence[Path]) -> None:
    from ..report.figures.style import encode

    for path in paths:
        write_output(path, encode(figure, "png" if path.suffix.lower() == ".png" else "svg"), "--out")
