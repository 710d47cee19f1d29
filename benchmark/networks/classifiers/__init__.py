"""Classifiers: networks of targets and judges."""
