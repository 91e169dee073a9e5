"""The command line: what a person types and sees."""

import os
import sys

_STOPPED = 130  # as shells count a Ctrl-C


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being loaded is said as any other."""
    try:
        from hwnas.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("hwnas: stopped; type the same command again to go on", file=sys.stderr, flush=True)
        os._exit(_STOPPED)  # at once: a second one must not find what is being taken down
