"""Figures: reconstructions, t-SNE, trade-off."""
