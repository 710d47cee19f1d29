"""What mkdocs calls: adds the pages that are made from the code, and their places in the navigation."""

from typing import Any

import component_pages
import example_page
import metric_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from privbench.benchmark.registry import KINDS


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of components where mkdocs.yml says `Components`."""
    config.nav = [_expanded(entry) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    made = [*component_pages.pages(), ("metrics.md", metric_pages.page()), ("example.md", example_page.page())]
    for path, text in made:
        files.append(File.generated(config, path, content=text))
    return files


def _expanded(entry: Any) -> Any:
    if entry != {"Components": "components/index.md"}:
        return entry
    kinds = []
    for kind in KINDS:
        folder = f"components/{component_pages.PLURALS[kind]}"
        names = [{each.name: f"{folder}/{each.name}.md"} for each in component_pages.built_in(kind)]
        kinds.append({component_pages.TITLES[kind]: [f"{folder}/index.md", *names]})
    return {"Components": ["components/index.md", *kinds]}
