"""Generative networks that only attacks use."""
