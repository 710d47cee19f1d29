"""Tables of the conformance checks in docs/plugins.md, generated from the checks."""

import re

from docstrings import table
from privbench.benchmark.registry import KINDS
from privbench.benchmark.testing import checks

_MARKED = re.compile(r"(<!-- checks -->\n).*?(\n<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with the tables of all kinds between its two marks."""
    return _MARKED.sub(lambda found: f"{found[1]}{tables()}{found[2]}", page)


def tables() -> str:
    """A heading and a table for every kind of component."""
    sections = []
    for kind in KINDS:
        article = "an" if kind[0] in "aeiou" else "a"
        rows = [(f"`{each}`", each.about) for each in checks(kind)]
        sections.append(f"### Checks of {article} {kind}\n\n{table(('check', 'requirement'), rows)}")
    return "\n\n".join(sections)
