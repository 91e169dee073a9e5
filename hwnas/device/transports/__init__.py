"""Transports, one file each: how files and the runner get to a device, and lines come back.

A plug-in's module whose devices are emulated on this machine says `EMULATED = True`: models run there, but their time
means nothing. Its function `set_up(device) -> Path` makes what it needs here, and returns where that is.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from hwnas.device.device import Device
from hwnas.errors import InputError
from hwnas.support import commands, plugins


class Transport(Protocol):
    """A way to a device; a plug-in's module has a class `Transport` that is made from a Device.

    Used as a context manager, which closes it. Every failure on the way or on the device is a DeviceError.
    """

    def put(self, path: Path) -> str:
        """Bring a file to the device and return its path there.

        No two files share a path there, even those of one name from different folders. The file stays until `close`.
        Raises InputError where `path` is no file here.
        """
        ...

    def run(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """Run the device's Python, unbuffered, with these arguments; yield the lines that it writes as they come.

        Starts when the first line is asked for. Standard input stays open for as long as somebody listens: a process
        that ends when it closes, as the runner does, is never left behind. Closing the generator, or an exception in
        it, ends the process first.

        Raises DeviceError, with the end of standard error, where the process cannot be started or its exit status is
        not 0. A cut connection may look like a good end: only an end line of one's own says that everything came.
        """
        ...

    def close(self) -> None:
        """Give back what the device was lent: connections, and files that `put` copied. May be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def is_emulated(device: Device) -> bool:
    """Return whether a device's time means nothing; raises UnknownNameError for an unknown transport."""
    return bool(getattr(plugins.load("transports", device.transport), "EMULATED", False))


def runs_python(device: Device) -> bool:
    """Return whether a device computes what it is told to: one whose transport times models by itself does not."""
    return not hasattr(plugins.load("transports", device.transport).Transport, "time")


def check_times(device: Device) -> None:
    """Raise InputError, with what it is for, for a device whose time means nothing."""
    if is_emulated(device):
        raise InputError(
            f"only a real device has a latency; {device.name} is emulated, which serves to check exported files on it "
            f"and to count their instructions. Type: {commands.verify(device=device.name)}"
        )


def open_transport(device: Device) -> Transport:
    """Open the device's transport.

    Raises UnknownNameError, which lists the known ones, and DeviceError where the device cannot be reached.
    """
    transport: Transport = plugins.load("transports", device.transport).Transport(device)
    return transport
