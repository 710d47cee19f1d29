"""Bundle and verify submissions."""
