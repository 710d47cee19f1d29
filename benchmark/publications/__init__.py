"""Published tables as data."""
