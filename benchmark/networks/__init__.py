"""Targets, judges and embedders."""
