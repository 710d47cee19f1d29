"""The `privbench` command: puts the commands together and turns errors into sentences."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from ..errors import PrivbenchError
from . import check, data, doctor, export, figure, new, paper, report, run, show, store, submit, verify, weights, zoo
from .show import list_components

app = typer.Typer(
    name="privbench",
    help="Measure how much a trained image model leaks under a named defense and a named attack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("plan")(run.plan)
app.command("report")(report.report)
app.command("list")(list_components)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)
app.command("check")(check.check)
app.command("new")(new.new)
app.command("export")(export.export)
app.command("submit")(submit.submit)
app.command("verify")(verify.verify)
app.add_typer(paper.app, name="paper", help="Published tables: list, show, run, compare.")
app.add_typer(figure.app, name="figure", help="Pictures of records: reconstructions, tsne, tradeoff.")
app.add_typer(data.app, name="data", help="Prepare and check data sets.")
app.add_typer(weights.app, name="weights", help="Import, fetch and list the weights of networks that judge images.")
app.add_typer(zoo.app, name="zoo", help="List, fill and read zoos of exported targets.")
app.add_typer(store.app, name="store", help="List, check and clean the artifact store.")


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log details, and show where errors come from.")] = False,
) -> None:
    logging.basicConfig(format="%(message)s", level=logging.DEBUG if debug else logging.WARNING, stream=sys.stderr)
    if not debug:
        logging.getLogger("privbench").setLevel(logging.WARNING)
    if version:
        from ... import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; exit 0 done, 1 something the user can fix, 2 usage, 130 interrupted."""
    debug = "--debug" in sys.argv
    report.survive_encoding()
    try:
        app()
    except PrivbenchError as error:
        if debug:
            raise
        typer.echo(f"privbench: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("privbench: interrupted; the same command goes on where it stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output is gone (`privbench list | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
