"""Attacks, one file per published method."""
