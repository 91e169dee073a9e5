"""`python -m hwnas.cli` is the command line."""

from hwnas.cli import main

main()
