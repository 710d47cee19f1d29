"""Names from files reach the terminal without characters that it obeys, from every command."""

import io
import json
import logging
import re
from pathlib import Path

import pytest
from helpers import command_line
from privbench.benchmark.cli import output
from privbench.benchmark.cli.output import LogFormatter
from privbench.benchmark.store.store import Store
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

COMMANDS = Path(output.__file__).parent
#: A title of the window, a colour (ESC and C1), a line that goes back, one that is read from right to left.
HOSTILE = "x\x1b]0;title\x07\x1b[31m\x9b31m\r\u202efdp\x7f"
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_one_module_prints() -> None:
    """Everything else prints through it, so that nothing is forgotten."""
    prints = re.compile(r"typer\.echo\(|(?<![\w.])print\(|\bConsole\(|sys\.std(out|err)\.write")
    for path in COMMANDS.glob("*.py"):
        assert path.name == "output.py" or not prints.search(path.read_text()), path.name


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("PRIVBENCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(tmp_path / "results"))
    store = Store(tmp_path / "store")
    store.write("target", "a" * 64, tensors={}, info={}, files={})
    records = tmp_path / "results" / "records"
    records.mkdir(parents=True)
    (records / "a.json").write_text(json.dumps({"artifacts": {"target": {"key": "a" * 64}}}))
    return store


def test_names_of_files(store, tmp_path) -> None:
    (store.root / HOSTILE).write_text("")
    (tmp_path / "results" / "records" / f"{HOSTILE}\nforged line.json").write_text("{")
    for words in (["store", "check"], ["report", "--format", "md"], ["verify", tmp_path / HOSTILE]):
        result = command_line.run(*words)
        said = result.out + result.err
        assert "title" in said, words
        assert not OBEYED.search(said), words


def test_log_lines() -> None:
    """Those of `gc` name records that it cannot read."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter())
    logger = logging.Logger("privbench")
    logger.addHandler(handler)
    logger.warning("%s is not a record", f"{HOSTILE}\nforged line")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.warning("failed", exc_info=True)
    first, second, *trace = stream.getvalue().splitlines()
    assert first.endswith("forged line is not a record")
    assert second == "failed"
    assert "ValueError" in trace[-1]
    assert not OBEYED.search(stream.getvalue())


def test_main_formats_log_lines(store, monkeypatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    command_line.run("store", "ls")
    (handler,) = logging.root.handlers
    assert isinstance(handler.formatter, LogFormatter)


def test_tables_and_progress() -> None:
    """Colours of the table itself stay; with a terminal, too."""
    for is_terminal in (False, True):
        file = io.StringIO()
        colours = "standard" if is_terminal else None
        console = output.console(file=file, width=200, force_terminal=is_terminal, color_system=colours)
        table = Table(HOSTILE)
        table.add_row(Text(HOSTILE, style="green"))
        console.print(table)
        assert ("\x1b[32m" in file.getvalue()) == is_terminal
        with Progress(console=console, transient=True):
            console.print(Text(HOSTILE), soft_wrap=True)
        said = re.sub(r"\x1b\[([0-9;]*[mKAG]|\?25[lh]|1A)|\r", "", file.getvalue())
        assert said.count("title") == 3
        assert not OBEYED.search(said.replace("\x1b[2K", "").replace("\x1b[3m", "")), repr(said)


def test_text_and_json_of_commands(capsys) -> None:
    output.echo(f"{HOSTILE}\ttab\nnext")
    output.print_problems([HOSTILE])
    output.print_json({HOSTILE: HOSTILE})
    found = capsys.readouterr()
    assert not OBEYED.search(found.out + found.err)
    assert "\ttab\nnext" in found.out
    assert json.loads(found.out[found.out.index("{") :]) == {HOSTILE: HOSTILE}
