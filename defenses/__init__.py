"""Defenses: one file a published method."""
