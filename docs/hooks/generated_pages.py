"""Hooks of mkdocs: add the pages that are generated from the code, and their entries in the navigation."""

from typing import Any

import component_pages
import example_page
import site_links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from privbench.benchmark.registry import KINDS


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of components below the entry `Components`."""
    config.nav = [_expanded(entry) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that only the site has."""
    for path, text in [*component_pages.pages(), ("example.md", example_page.page())]:
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to source files by links to the pages that the site has for them."""
    return site_links.for_site(markdown, page.file.src_uri)


def _expanded(entry: Any) -> Any:
    if entry != {"Components": "components/index.md"}:
        return entry
    kinds = []
    for kind in KINDS:
        folder = f"components/{component_pages.PLURALS[kind]}"
        names = [{each.name: f"{folder}/{each.name}.md"} for each in component_pages.built_in(kind)]
        kinds.append({component_pages.TITLES[kind]: [f"{folder}/index.md", *names]})
    return {"Components": ["components/index.md", *kinds]}
