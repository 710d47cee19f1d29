"""Attacks: one file a published method."""
