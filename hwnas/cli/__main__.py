"""`python -m hwnas.cli` is the command line."""

from hwnas.cli.main import main

main()
