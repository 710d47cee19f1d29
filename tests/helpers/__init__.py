"""What several test folders share; `helpers` is on the path of pytest."""
