"""`python -m privbench`."""

from .benchmark.cli.main import main

main()
