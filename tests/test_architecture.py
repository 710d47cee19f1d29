"""Imports run one way, there are no cycles, and what must start fast does not import torch."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Folders and files of the package, bottom to top. Each imports only itself and what stands before it. A file belongs
#: to the longest name that it starts with. Everything that a file imports counts: at its top, inside functions, and
#: for type checkers alone.
ORDER = (
    "benchmark/errors.py",
    "benchmark/core",
    "benchmark/files",
    "benchmark/registry.py",
    "benchmark/networks/weights",
    "benchmark/networks/classifiers/network.py",
    "benchmark/networks/classifiers",
    "benchmark/networks/embedders",
    "benchmark/networks/perceptual",
    "benchmark/networks",
    "benchmark/access",
    "benchmark/training",
    "benchmark/contracts.py",
    "benchmark/datasets",
    "benchmark/store",
    "benchmark/records",
    "benchmark/analysis",
    "attacks/networks",
    "attacks",
    "defenses",
    "evaluators",
    "benchmark/isolation",
    "benchmark/pipeline",
    "benchmark/runners",
    "benchmark/exports",
    "benchmark/papers",
    "benchmark/api.py",
    "benchmark/report/formatting.py",
    "benchmark/report/tradeoff.py",
    "benchmark/report/tables",
    "benchmark/report/figures",
    "benchmark/report/html",
    "benchmark/report",
    "benchmark/submissions",
    "benchmark/testing",
    "benchmark/scaffold",
    "benchmark/doctor.py",
    "benchmark/cli",
)
#: What the folders of components may import of one another: nothing. They meet in the registry.
COMPONENTS = ("attacks", "defenses", "evaluators", "benchmark/datasets")
#: What a component may import from the harness.
OPEN = (
    "benchmark/errors.py",
    "benchmark/core",
    "benchmark/files",
    "benchmark/registry.py",
    "benchmark/networks",
    "benchmark/access",
    "benchmark/training",
    "benchmark/contracts.py",
)
#: Modules whose import must not import torch.
LIGHT = (
    "contracts",
    "core.evidence",
    "pipeline.matrix",
    "analysis.record_set",
    "records.record",
    "registry",
    "errors",
    "core.paths",
    "pipeline.plan",
    "cli.main",
    "report.html.pages",
)
LONGEST = 350


def sources(root: Path) -> dict[str, Path]:
    """Files of the package by their path from `root`, with `/`."""
    folders = ("benchmark", "attacks", "defenses", "evaluators")
    return {
        path.relative_to(root).as_posix(): path
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
        if "templates" not in path.parts
    }


def imports(root: Path) -> dict[str, set[str]]:
    """For each file the files of the package that it imports, wherever the statement stands."""
    files = sources(root)
    return {name: set(_imported(name, path, files)) - {name} for name, path in files.items()}


def _imported(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = name.split("/")[:-1]
    for node in _nodes(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            strays = [alias.name for alias in node.names if alias.name.split(".")[0] == "privbench"]
            assert not strays, f"{name} imports {strays[0]} absolutely; write it as a relative import"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] != "privbench", f"{name} imports {node.module} absolutely"
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                for target in ([*base, alias.name], base):
                    found = _file("/".join(target), files)
                    if found:
                        yield found
                        break


@functools.cache
def _nodes(text: str) -> tuple[ast.AST, ...]:
    """Imports, calls and the module of a source text: files of the package are parsed once for all tests."""
    return tuple(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call | ast.Module)
    )


def _file(target: str, files: Mapping[str, Path]) -> str | None:
    return next((name for name in (f"{target}.py", f"{target}/__init__.py") if name in files), None)


def room(name: str, rooms: tuple[str, ...] = ORDER) -> str | None:
    """The entry of `rooms` that a file belongs to."""
    found = [entry for entry in rooms if name == entry or name.startswith(f"{entry}/")]
    return max(found, key=len, default=None)


def faults(root: Path) -> list[str]:
    """List what is wrong with the imports below `root`, one sentence each."""
    graph = imports(root)
    found = [f"{name} has no place in ORDER" for name in graph if room(name) is None and not _is_root(name)]
    for name, targets in graph.items():
        for target in sorted(targets):
            above, below = room(name), room(target)
            if above is None or below is None:
                continue
            if ORDER.index(below) > ORDER.index(above):
                found.append(f"{name} imports {target}, against the order")
            component, other = room(name, COMPONENTS), room(target, COMPONENTS)
            if other and component and component != other:
                found.append(f"{name} imports {target}, a component of another kind")
            if component and not other and room(target, OPEN) is None:
                found.append(f"{name} imports {target}, which is closed to components")
            if other and not component:
                found.append(f"{name} imports {target} and must reach it through the registry")
    return found + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def _is_root(name: str) -> bool:
    return name == "benchmark/__init__.py"


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Every file that lies on a cycle of imports, by strongly connected components, larger than one file."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in numbers:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], numbers[target])
        if lowest[name] == numbers[name]:
            component = []
            while not component or component[-1] != name:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for name in graph:
        if name not in numbers:
            visit(name)
    return found


def test_imports_run_one_way() -> None:
    assert faults(ROOT) == []


def test_the_order_names_what_exists() -> None:
    files = sources(ROOT)
    for entry in ORDER:
        assert any(room(name) == entry for name in files), f"{entry} holds no file"


def test_folders_have_no_cycles() -> None:
    """A folder is one node here, without the folders in it."""
    graph: dict[str, set[str]] = {}
    for name, targets in imports(ROOT).items():
        folder = name.rpartition("/")[0]
        graph.setdefault(folder, set()).update(target.rpartition("/")[0] for target in targets)
    for folder, targets in graph.items():
        targets.discard(folder)
    roots = {"benchmark"}  # the five files at the root stand at different heights
    graph = {folder: targets - roots for folder, targets in graph.items() if folder not in roots}
    assert cycles(graph) == []


def _copy(folder: Path, **planted: str) -> Path:
    """A tree with the folders of the package, two empty files in each, and what is planted."""
    for entry in ORDER:
        path = folder / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text("", encoding="utf-8")
        else:
            path.mkdir(parents=True, exist_ok=True)
            for name in ("one", "two"):
                (path / f"{name}.py").write_text("", encoding="utf-8")
    for name, text in planted.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_tree_without_faults_has_none(tmp_path: Path) -> None:
    assert faults(_copy(tmp_path, benchmark__runners__one="from ..pipeline.one import run\n")) == []


def test_a_cycle_through_a_lazy_import_is_a_fault(tmp_path: Path) -> None:
    lazy = "def late():\n    from .two import x\n    return x\n"
    root = _copy(tmp_path, benchmark__store__one=lazy, benchmark__store__two="from .one import late\n")
    assert faults(root) == ["cycle: benchmark/store/one.py -> benchmark/store/two.py"]


def test_a_type_only_import_against_the_order_is_a_fault(tmp_path: Path) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..pipeline.two import Plan\n"
    root = _copy(tmp_path, benchmark__core__one=typed)
    assert faults(root) == ["benchmark/core/one.py imports benchmark/pipeline/two.py, against the order"]


def test_a_module_without_a_place_is_a_fault(tmp_path: Path) -> None:
    root = _copy(tmp_path, benchmark__helpers="")
    assert faults(root) == ["benchmark/helpers.py has no place in ORDER"]


def test_an_import_of_a_component_is_a_fault(tmp_path: Path) -> None:
    root = _copy(tmp_path, benchmark__pipeline__one="from ...attacks import one\n")
    assert faults(root) == [
        "benchmark/pipeline/one.py imports attacks/one.py and must reach it through the registry",
    ]


def test_only_the_command_line_prints() -> None:
    for name, path in sources(ROOT).items():
        if not name.startswith("benchmark/cli/"):
            calls = [node for node in _nodes(path.read_text("utf-8")) if isinstance(node, ast.Call)]
            prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
            assert not prints, f"{name} prints at line {prints[0].lineno}"


def test_listing_and_reporting_do_not_import_torch() -> None:
    """One process imports all of them, and names the first that imports torch."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'privbench.benchmark.{name}')\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_can_be_read_in_one_sitting() -> None:
    """A longer file says why in its docstring, in a line that begins with `Length:`."""
    for name, path in sources(ROOT).items():
        text = path.read_text(encoding="utf-8")
        (module,) = (node for node in _nodes(text) if isinstance(node, ast.Module))
        reason = re.search(r"^Length: ", ast.get_docstring(module) or "", re.MULTILINE)
        assert len(text.splitlines()) <= LONGEST or reason, f"{name} is longer than {LONGEST} lines"


PAGE = ROOT / "docs" / "design" / "architecture.md"
_NAMED = re.compile(r"`((?:benchmark|attacks|defenses|evaluators)/[\w/]+\.py)(?::([\w.]+))?`")


def _defines(path: Path, dotted: str) -> bool:
    """Return whether a file defines a function, class or method, such as `Matrix.cells`."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for name in dotted.split("."):
        found = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
        if not found:
            return False
        body = found[0].body
    return True


def test_the_architecture_page_names_what_exists() -> None:
    named = _NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 20
    for file, dotted in named:
        assert (ROOT / file).is_file(), f"{file} does not exist"
        assert not dotted or _defines(ROOT / file, dotted), f"{file} defines no {dotted}"


def test_the_main_path_has_at_most_ten_stops_each_with_a_function() -> None:
    text = PAGE.read_text(encoding="utf-8").split("## The main path")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert 5 <= len(rows) <= 10
    assert all(_NAMED.findall(where)[0][1] for _, where, _ in rows)
