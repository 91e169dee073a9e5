"""The command line: what a person types and sees."""

import os

_STOPPED = 130  # as shells count a Ctrl-C


def main() -> None:
    """Run the command line; a Ctrl-C or SIGTERM while it is still being loaded is said as any other."""
    try:
        stop_at_once()
        from hwnas.cli.main import main as run

        run()
    except KeyboardInterrupt:
        _end(_STOPPED)


def stop_at_once() -> None:
    """Let Ctrl-C and SIGTERM end the process where they find it: nothing has been begun, or all has been given back.

    An exception would do harm in the middle of an import, and none is raised where Python shuts down.
    """
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as shells have it of what runs in the background
            signal.signal(number, lambda number, frame: _end(128 + number))


def say_stopped() -> None:
    """Say that hwnas was stopped; not by `print`, which may be at work below a signal's handler."""
    os.write(2, b"hwnas: stopped; type the same command again to go on\n")


def _end(status: int) -> None:
    """End the process without what Python does at its end, in which a second Ctrl-C would be a traceback."""
    say_stopped()
    os._exit(status)
