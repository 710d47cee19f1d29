"""Classifiers: the networks of targets and judges."""
