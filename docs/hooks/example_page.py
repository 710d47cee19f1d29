"""The page of the example package: its README, and every file of it."""

from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "examples" / "privbench-letters"
LANGUAGES = {".toml": "toml", ".py": "python"}


def files() -> Iterator[Path]:
    """What the package consists of, besides its README."""
    for path in [PACKAGE / "pyproject.toml", *sorted(PACKAGE.rglob("*.py"))]:
        if "build" not in path.relative_to(PACKAGE).parts:
            yield path


def page() -> str:
    """The Markdown."""
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8").replace("](../../", "](")
    found = [readme.rstrip(), "## Files"]
    for path in files():
        language, text = LANGUAGES[path.suffix], path.read_text(encoding="utf-8").rstrip()
        found.append(f'```{language} title="{path.relative_to(PACKAGE.parent)}"\n{text}\n```')
    return "\n\n".join(found) + "\n"
