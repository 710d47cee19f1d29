"""Reports in a real headless Chromium: from a file and from a local server, with everything that goes wrong noted."""

import functools
import http.server
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from helpers import board_samples
from privbench import load_records
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.cli.report import report
from typer.testing import CliRunner

COMMITTED = Path(__file__).resolve().parents[3] / "results"
#: Nothing but this machine has a name.
FLAGS = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu", "--force-color-profile=srgb"]


@dataclass
class Visit:
    """An open page and what went wrong on it: errors, messages of the console, requests elsewhere, dialogs."""

    page: Any
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """`helpers.board_samples`."""
    return board_samples


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, or a skip where this machine has none or playwright is missing."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright axe-playwright-python")
    named = os.environ.get("PRIVBENCH_CHROMIUM")
    names = (named,) if named else ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip("no Chromium here: install one (Debian: apt-get install chromium) or set PRIVBENCH_CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A running Chromium. It ends with the module, since it keeps an event loop in this thread."""
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS + root)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens a page that has seen no other test; the test fails if anything goes wrong on a page that it opened."""
    visits: list[Visit] = []
    contexts: dict[str, Any] = {}

    def open_page(address: str | Path, **options: Any) -> Visit:
        if repr(options) not in contexts:
            settings = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US"} | options
            contexts[repr(options)] = browser.new_context(**settings)
            contexts[repr(options)].set_default_timeout(20_000)
        visits.append(Visit(contexts[repr(options)].new_page()))
        watch(visits[-1])
        visits[-1].page.goto(address.as_uri() if isinstance(address, Path) else address)
        return visits[-1]

    yield open_page
    for context in contexts.values():
        context.close()
    problems = [problem for seen in visits for problem in seen.problems]
    assert problems == []


def watch(seen: Visit) -> None:
    """Note what goes wrong on the page from now on."""
    page, note = seen.page, seen.problems.append

    def requested(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "http://127.0.0.1:", "about:blank")):
            note(f"request of {request.url}")

    def asked(dialog: Any) -> None:
        note(f"dialog {dialog.message}")
        dialog.dismiss()

    def failed(request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the reader went on before a picture was there
            note(f"failed request of {request.url}: {request.failure}")

    page.on("console", lambda message: note(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: note(f"error {error}"))
    page.on("requestfailed", failed)
    page.on("dialog", asked)
    page.on("popup", lambda popup: note(f"popup {popup.url}"))
    page.on("request", requested)


def make_report(results: Path, output: Path, *options: str, code: int = 0) -> Path:
    """The page that `privbench report --format html` prints the path of."""
    app = typer.Typer()
    app.command()(report)
    words = [str(results), "--format", "html", "--output", str(output), *options]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """`make_report`, for tests with records of their own."""
    return make_report


@pytest.fixture(scope="session")
def board(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the board of the committed records."""
    return make_report(COMMITTED, tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="session")
def single(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed records on MNIST in one file."""
    results = COMMITTED / "records" / "mnist-v1"
    return make_report(results, tmp_path_factory.mktemp("single") / "board.html", "--single")


@pytest.fixture(scope="session")
def varied(chromium: str, samples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Records]:
    """The index of the board of 110 sampled records of four sections, and the records."""
    folder = tmp_path_factory.mktemp("varied")
    samples.write_many(folder / "results", 110)
    return make_report(folder / "results", folder / "board"), load_records(folder / "results")


@pytest.fixture(scope="session")
def hostile(chromium: str, samples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the board of hostile records, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("hostile")
    samples.write_hostile(folder / "results")
    return make_report(folder / "results", folder / "board", code=1)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on this machine and gives its address."""
    servers = []

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
