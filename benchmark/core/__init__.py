"""Basic values that all other folders use, without I/O."""
