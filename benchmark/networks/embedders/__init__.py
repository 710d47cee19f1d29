"""Embedders: networks that compare images by one vector each."""
