"""File formats of `results/`."""
