"""Defenses, one file per published method."""
