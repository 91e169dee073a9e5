"""`python -m hwnas` is the command line."""

from hwnas.cli.main import main

main()
