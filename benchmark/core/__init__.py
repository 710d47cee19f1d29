"""Values that everybody uses, without I/O."""
