"""Links and anchors of Markdown pages, as GitHub and as Python-Markdown resolve them."""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator

from markdown_it import MarkdownIt


def links(text: str) -> Iterator[str]:
    """The targets of the relative links and pictures of a page."""
    for token in MarkdownIt().enable("table").parse(text):
        for child in token.children or ():
            target = str(child.attrs.get("href", child.attrs.get("src", "")))
            if target and not re.match(r"[a-z]+:", target):
                yield target


def github_slug(heading: str) -> str:
    """The anchor of a heading in the repository view."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def site_slug(heading: str) -> str:
    """The anchor of a heading on the site: the default of Python-Markdown."""
    ascii_text = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_text).strip().lower())


@functools.cache
def anchors(text: str, slug: Callable[[str], str]) -> set[str]:
    """The anchors of all headings of a page; a repeated heading counts once."""
    tokens = MarkdownIt().enable("table").parse(text)
    heads = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {slug("".join(child.content for child in head.children or ())) for head in heads}
