"""The machine at hand as a device: files stay where they are, the runner is a child process."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from hwnas.device.device import Device
from hwnas.device.transports._bounds import bounded_lines
from hwnas.errors import DeviceError, InputError
from hwnas.support import is_scarcity

_PATIENCE_S = 5.0  # for a process that was asked to end
_TAIL = 2000  # characters of standard error in an error


def starts(device: Device) -> str:
    """Return the interpreter that a device's file names, unless it is this one."""
    return "" if device.python == sys.executable else device.python


class Transport:
    """See hwnas.device.transports.Transport."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._python = device.python or sys.executable

    def put(self, path: Path) -> str:
        """Return the file's absolute path."""
        if not path.is_file():
            raise InputError(f"what is brought to device {self._device.name} must be a file; got {path}")
        return str(path.absolute())

    def run(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """Run a child process. What it writes to standard error is shown only if it fails."""
        command = [self._python, "-u", *arguments]
        with tempfile.TemporaryFile() as stderr:
            process = self._start(command, stderr)
            try:
                if process.stdout:
                    yield from bounded_lines(process.stdout, where=f"device {self._device.name}")
                status = process.wait()
            finally:
                _end(process)
            if status != 0:
                raise DeviceError(self._failure(command, status, stderr))

    def close(self) -> None:
        """Do nothing: nothing was lent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, command: list[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        except OSError as error:
            if is_scarcity(error):  # which is no fault of the interpreter
                raise
            name = self._device.name
            raise DeviceError(
                f"`python` of device {name} must be an interpreter that can be started; got {self._python}: "
                f"{error.strerror}. Set it in devices/{name}.toml"
            ) from None

    def _failure(self, command: list[str], status: int, stderr: IO[bytes]) -> str:
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 4 * _TAIL))  # a character has four bytes at most
        words = stderr.read().decode(errors="replace").strip()[-_TAIL:] or "nothing on standard error"
        ended = f"status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
        return (
            f"a run on device {self._device.name} must end with status 0; got {ended}: {words}\n"
            f"To see it again: {shlex.join(command)}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, if it has not ended, wait for it and close its pipes."""
    with process:  # closes the pipes and waits
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
