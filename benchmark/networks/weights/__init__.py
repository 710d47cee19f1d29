"""Published weights: which, where, how to import."""
