"""The `privbench` command: registers all commands, and prints errors as one sentence."""

import logging
import os
import sys
from typing import Annotated

import typer

from ..errors import PrivbenchError
from . import check, data, doctor, export, figure, new, paper, report, run, show, store, submit, verify, weights, zoo
from .options import INTERRUPTED
from .output import LogFormatter, echo, survive_encoding

app = typer.Typer(
    name="privbench",
    help="Measure how much a trained image model leaks under a named defense and a named attack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run.run, run.plan, report.report):
    app.command()(command)
app.command("list")(show.list_components)
for command in (show.show, doctor.doctor, check.check, new.new, export.export, submit.submit, verify.verify):
    app.command()(command)
for group in (paper, figure, data, weights, zoo, store):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log details, and show tracebacks of errors.")] = False,
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    if not debug:
        logging.getLogger("privbench").setLevel(logging.WARNING)
    if version:
        from ... import __version__

        echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 an error that the user can fix, 2 wrong usage, 130 interrupted.
    """
    debug = "--debug" in sys.argv
    survive_encoding()
    try:
        app()
    except PrivbenchError as error:
        if debug:
            raise
        echo(f"privbench: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        echo(INTERRUPTED, err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has ended, as in `privbench list | head`; this is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
