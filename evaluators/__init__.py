"""Evaluators, one file per published score."""
