"""Perceptual networks."""
