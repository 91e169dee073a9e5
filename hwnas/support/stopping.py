"""Ctrl-C and SIGTERM: both are exceptions where a verb works, and are held back where they would do harm."""

import os
import signal
import sys
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_AGAIN_S = 0.05  # between two looks whether an import is over
_MOST_LOOKS = 200
_IMPORTING = "<frozen importlib._bootstrap>"
_Handler = Callable[[int, FrameType | None], Any] | int | None


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises: it ends a verb as Ctrl-C does."""


@dataclass(slots=True)
class Held:
    """What was held back, or raised: the number of the signal, or 0."""

    number: int = 0

    def is_set(self) -> bool:
        """Say whether there was one."""
        return self.number != 0

    def stop(self) -> None:
        """Raise the exception of the signal, if there was one."""
        if self.number:
            raise Terminated if self.number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def raised() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise exceptions, also those that come in the middle of an import or of a finaliser.

    Where a library makes an error of its own of one, as pydantic does while it builds a model, that gives way to it.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, raising = sys.unraisablehook, _Raising()
    try:
        sys.unraisablehook = _raise_elsewhere
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as shells have it of what runs in the background
                signal.signal(number, raising)
        yield
    except Exception:
        raising.raised.stop()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


@dataclass(slots=True)
class _Raising:
    """A handler that raises a signal's exception.

    In the middle of an import that would be caught, or break what is half there: then the signal is sent again a little
    later, but not for ever.
    """

    looks: int = 0
    raised: Held = field(default_factory=Held)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.looks += 1
        if self.looks > _MOST_LOOKS or not _is_importing(frame):
            self.raised.number = number
            self.raised.stop()
        start_new_thread(_send_later, (number,))  # threading's own threads take locks, which may be held just now


def _send_later(number: int) -> None:
    time.sleep(_AGAIN_S)
    os.kill(os.getpid(), number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _raise_elsewhere(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again whose exception came where there can be none, as in a weak reference's callback."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        is_terminated = isinstance(unraisable.exc_value, Terminated)
        start_new_thread(_send_later, (signal.SIGTERM if is_terminated else signal.SIGINT,))
    else:
        sys.__unraisablehook__(unraisable)


@contextmanager
def held(*, second: bool = True) -> Iterator[Held]:
    """Hold back Ctrl-C and SIGTERM until the block has ended, so that it is done whole; then raise what came.

    Without `second` only the first one is held back. Outside of the main thread, which no signal reaches, and where
    signals are held back already or raise nothing, this does nothing.
    """
    found = Held()

    def hold(number: int, frame: FrameType | None) -> None:
        if found.number and not second:
            Held(number).stop()
        found.number = found.number or number

    before: dict[int, _Handler] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in map(int, (signal.SIGINT, signal.SIGTERM)):
                handler = signal.getsignal(number)
                if isinstance(handler, _Raising) or handler is signal.default_int_handler:
                    before[number] = handler
                    signal.signal(number, hold)
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        found.stop()
