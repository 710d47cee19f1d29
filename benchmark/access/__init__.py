"""What an attack may query of a target."""
