"""Imports run one way, there are no cycles, and what must start fast does not import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ("attacks", "defenses", "evaluators")
#: What a component may import from the harness.
OPEN = (
    "contracts",
    "evidence",
    "access",
    "networks",
    "training",
    "datasets",
    "errors",
    "judges",
    "seeds",
    "statistics",
)
LIGHT = (
    "contracts",
    "evidence",
    "spec",
    "records",
    "record",
    "registry",
    "errors",
    "folders",
    "plan",
    "cli.main",
    "report.board",
)


def modules() -> dict[str, Path]:
    found = {}
    for folder in ("benchmark", *COMPONENTS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path], *, top_only: bool = False) -> set[str]:
    """Modules of the project that a file imports; at module level only, if asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    nodes = _top(tree) if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                full = ".".join([*base, alias.name])
                found.add(full if full in known else ".".join(base))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(n.split(".")[0] == "privbench" for n in names), f"{name} imports privbench absolutely"
    return found - {""}


def _top(tree: ast.Module) -> list[ast.AST]:
    """Statements that run on import: not in functions, not under TYPE_CHECKING."""
    found: list[ast.AST] = []
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        found.append(node)
        todo += list(ast.iter_child_nodes(node))
    return found


def test_components_import_only_the_open_part_of_the_harness() -> None:
    known = modules()
    for name, path in known.items():
        folder = name.split(".")[0]
        if folder not in COMPONENTS:
            continue
        for target in imports(name, path, known):
            first, _, rest = target.partition(".")
            allowed = first == folder or (first == "benchmark" and rest.split(".")[0] in OPEN)
            assert allowed, f"{name} imports {target}"


def test_the_harness_reaches_components_only_by_name() -> None:
    known = modules()
    for name, path in known.items():
        if name.startswith("benchmark"):
            strays = {target for target in imports(name, path, known) if target.split(".")[0] in COMPONENTS}
            assert not strays, f"{name} imports {strays}"


def test_only_the_command_line_prints_and_nothing_imports_it() -> None:
    known = modules()
    for name, path in known.items():
        if not name.startswith("benchmark.cli"):
            reached = {target for target in imports(name, path, known) if target.startswith("benchmark.cli")}
            assert not reached, f"{name} imports {reached}"


def test_no_import_cycles() -> None:
    known = modules()
    graph = {name: imports(name, path, known, top_only=True) & set(known) for name, path in known.items()}
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"cycle: {' -> '.join([*path, name])}"
        if state.get(name) == 2:
            return
        state[name] = 1
        for target in sorted(graph[name] - {name}):
            visit(target, (*path, name))
        state[name] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", LIGHT)
def test_listing_and_reporting_do_not_import_torch(module: str) -> None:
    code = f"import privbench.benchmark.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_can_be_read_in_one_sitting() -> None:
    long = {str(path): n for path in modules().values() if (n := len(path.read_text("utf-8").splitlines())) > 450}
    assert not long
