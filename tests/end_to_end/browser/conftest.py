"""Fixtures that open reports in a headless Chromium, from files and from a local server, and collect all problems."""

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
from helpers import board_samples, command_line
from privbench import load_records
from privbench.benchmark.analysis.record_set import Records

COMMITTED = Path(__file__).resolve().parents[3] / "results"
#: No host name resolves, so only this machine can be reached.
FLAGS = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu", "--force-color-profile=srgb"]


@dataclass
class Visit:
    """An open page and its problems: errors, console messages, requests to other hosts, dialogs."""

    page: Any
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """`helpers.board_samples`."""
    return board_samples


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; skips the test if Chromium or playwright is not installed."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright axe-playwright-python")
    named = os.environ.get("PRIVBENCH_CHROMIUM")
    names = (named,) if named else ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium, or set PRIVBENCH_CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A running Chromium. It is closed after each module because it keeps an event loop in this thread."""
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS + root)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """A function that opens a page in a new context; the test fails if one of its pages has a problem."""
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
    problems = [problem for opened in visits for problem in opened.problems]
    assert problems == []


def watch(visit: Visit) -> None:
    """Record the problems of a page from now on."""
    page, report_problem = visit.page, visit.problems.append

    def on_request(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "http://127.0.0.1:", "about:blank")):
            report_problem(f"request of {request.url}")

    def on_dialog(dialog: Any) -> None:
        report_problem(f"dialog {dialog.message}")
        dialog.dismiss()

    def on_failed_request(request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the test left the page before a picture was loaded
            report_problem(f"failed request of {request.url}: {request.failure}")

    page.on("console", lambda message: report_problem(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: report_problem(f"error {error}"))
    page.on("requestfailed", on_failed_request)
    page.on("dialog", on_dialog)
    page.on("popup", lambda popup: report_problem(f"popup {popup.url}"))
    page.on("request", on_request)


def make_report(results: Path, output: Path, *options: str, code: int = 0) -> Path:
    """Run `privbench report --format html` and return the path that it prints."""
    done = command_line.run("report", results, "--format", "html", "--output", output, *options)
    assert done.code == code, done.err
    return Path(done.out.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """`make_report`, for tests with their own records."""
    return make_report


@pytest.fixture(scope="session")
def board(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the report of the committed records."""
    return make_report(COMMITTED, tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="session")
def single(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the committed MNIST records in one file."""
    results = COMMITTED / "records" / "mnist-v1"
    return make_report(results, tmp_path_factory.mktemp("single") / "board.html", "--single")


@pytest.fixture(scope="session")
def varied(chromium: str, samples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Records]:
    """The index of the report of 160 sampled records in four sections, and the records."""
    folder = tmp_path_factory.mktemp("varied")
    samples.write_many(folder / "results", 160)
    return make_report(folder / "results", folder / "board"), load_records(folder / "results")


@pytest.fixture(scope="session")
def hostile(chromium: str, samples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the report of hostile records, one of which is invalid."""
    folder = tmp_path_factory.mktemp("hostile")
    samples.write_hostile(folder / "results")
    return make_report(folder / "results", folder / "board", code=1)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder on this machine and returns its URL."""
    servers = []

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
