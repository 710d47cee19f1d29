"""Packages that tests install into the running process."""

from privbench.benchmark import registry


def refresh_registry() -> None:
    """Clear the registry's caches, so that packages installed since are found."""
    registry._points.cache_clear()
    registry.entries.cache_clear()
