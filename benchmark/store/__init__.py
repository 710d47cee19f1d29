"""Cached artifacts, local and shared."""
