"""Links that work in the repository view, changed to those of the site.

A component's name that links to its source file leads to the component's page on the site; a link to the README of the
example package leads to the page that shows the whole package.
"""

import posixpath
import re
from functools import cache

from component_pages import PLURALS, built_in, source
from privbench.benchmark.registry import KINDS

_SOURCE = re.compile(r"\[`(\w+)`\]\(([\w./]+\.py)\)")
_EXAMPLE = re.compile(r"\]\(([\w./-]*privbench-letters/README\.md)\)")


def for_site(markdown: str, page: str) -> str:
    """The Markdown of a page with the links of the site.

    Args:
        markdown: with links that are relative to the page's place in the repository.
        page: path below docs, such as `components/index.md`.
    """
    folder = posixpath.dirname(f"docs/{page}")

    def component(found: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(folder, found[2]))
        target = _pages().get((found[1], source))
        return f"[`{found[1]}`]({posixpath.relpath(f'docs/{target}', folder)})" if target else found[0]

    markdown = _SOURCE.sub(component, markdown)
    return _EXAMPLE.sub(f"]({posixpath.relpath('docs/example.md', folder)})", markdown)


@cache
def _pages() -> dict[tuple[str, str], str]:
    return {
        (entry.name, source(entry)): f"components/{PLURALS[kind]}/{entry.name}.md"
        for kind in KINDS
        for entry in built_in(kind)
    }
