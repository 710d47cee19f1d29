"""Evaluators: one file a published score."""
