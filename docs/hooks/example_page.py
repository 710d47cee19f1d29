"""Generate the page of the example package: its README and all its files."""

from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "examples" / "privbench-letters"
LANGUAGES = {".toml": "toml", ".py": "python"}


def files() -> Iterator[Path]:
    """The files of the package, besides its README."""
    for path in [PACKAGE / "pyproject.toml", *sorted(PACKAGE.rglob("*.py"))]:
        if "build" not in path.relative_to(PACKAGE).parts:
            yield path


def page() -> str:
    """The Markdown of the page."""
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8").replace("](../../", "](")
    found = [readme.rstrip(), "## Files"]
    for path in files():
        language, text = LANGUAGES[path.suffix], path.read_text(encoding="utf-8").rstrip()
        found.append(f'```{language} title="{path.relative_to(PACKAGE.parent)}"\n{text}\n```')
    return "\n\n".join(found) + "\n"
