"""Generative networks that only the attacks use."""
