"""Share trained targets: export, load, zoo."""
