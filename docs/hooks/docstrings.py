"""Convert docstrings in Google style to Markdown, and write tables."""

import re
import textwrap
from collections.abc import Iterable, Sequence

SECTIONS = ("Args", "References", "Raises", "Returns", "Example", "Note")
_HEAD = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_URL = re.compile(r"(?<![<(`])https?://[^\s,;)]*[^\s,;.)]")
#: TeX is shown as code, because the site loads no script that renders it.
_TEX = re.compile(r"(?<![`$\\])\$([^$\n]+)\$(?!\$)")


def parts(docstring: str) -> tuple[str, str, list[tuple[str, str]]]:
    """The first line of a docstring, the rest of its prose, and its sections with their texts in order."""
    first, _, rest = docstring.strip().partition("\n")
    prose: list[str] = []
    sections: list[tuple[str, list[str]]] = []
    for line in textwrap.dedent(rest).splitlines():
        head = _HEAD.match(line)
        if head:
            sections.append((head[1], []))
        elif sections and (not line or line.startswith(" ")):
            sections[-1][1].append(line)
        else:
            prose.append(line)
    texts = [(name, textwrap.dedent("\n".join(lines)).strip()) for name, lines in sections]
    return first, "\n".join(prose).strip(), texts


def prose(text: str) -> str:
    """A docstring's text as Markdown: URLs become links, indented formulas fenced blocks, TeX code."""
    text = _URL.sub(lambda found: f"<{found[0]}>", text)
    text = _TEX.sub(lambda found: f"`{found[1]}`", text)
    return re.sub(r"(?:^ {4}.*\n?(?:\n(?= {4}))*)+", _fenced, text, flags=re.MULTILINE)


def _fenced(found: re.Match[str]) -> str:
    """An indented block as a fenced one; a continued list item stays as it is."""
    before = found.string[: found.start()]
    if before and not before.endswith("\n\n"):
        return found[0]
    return f"```text\n{textwrap.dedent(found[0]).strip()}\n```\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table without the columns that are empty in every row."""
    listed = [list(row) for row in rows]
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in listed)]
    lines = [[head[i] for i in kept], *([row[i] for i in kept] for row in listed)]
    first, *others = ["| " + " | ".join(_cell(text) for text in line) + " |" for line in lines]
    return "\n".join([first, "|" + "---|" * len(kept), *others])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
