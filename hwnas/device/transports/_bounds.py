"""How much a device may say: it may be broken, or not what it says it is, and must not fill this machine's memory."""

import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO

from hwnas.errors import DeviceError

LINE_BYTES = 16 * 2**20  # of a line; that of a thousand classes for a batch of a thousand images takes a third
WORDS_BYTES = 4 * 2**20  # that a short command writes
_CHUNK = 65536


def too_long(where: str) -> DeviceError:
    """Return the error for a line without an end."""
    return DeviceError(f"a line must have at most {LINE_BYTES} bytes; got a longer one from {where}")


def too_much(where: str) -> DeviceError:
    """Return the error for output without an end."""
    return DeviceError(f"a command must write at most {WORDS_BYTES} bytes; got more from {where}")


def bounded_lines(output: IO[bytes], *, where: str) -> Iterator[str]:
    """Yield the lines of a process on a device without their ends. Raises DeviceError for one that is too long."""
    while line := output.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise too_long(where)
        yield line.decode(errors="replace").removesuffix("\n").removesuffix("\r")


def run_bounded(command: Sequence[str], *, patience_s: float, where: str) -> subprocess.CompletedProcess[str]:
    """Run a command that asks a device; return what it wrote. It is killed where it takes too long or says too much.

    Raises OSError where it cannot be started, subprocess.TimeoutExpired, and DeviceError where it says too much.
    """
    end = time.monotonic() + patience_s
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    with process:
        try:
            out, err = _read_both(process, end, where)
            process.wait(max(0.0, end - time.monotonic()))
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _read_both(process: subprocess.Popen[bytes], end: float, where: str) -> tuple[str, str]:
    """Return what a process writes to its outputs until it closes them, before `end`."""
    said = {pipe.fileno(): bytearray() for pipe in (process.stdout, process.stderr) if pipe}
    with selectors.DefaultSelector() as selector:
        for descriptor in said:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, end)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
            if sum(map(len, said.values())) > WORDS_BYTES:
                raise too_much(where)
    out, err = (content.decode(errors="replace") for content in said.values())
    return out, err
