"""Transports, one file each: how files and the runner get to a device, and lines come back.

A plug-in's module whose devices are emulated on this machine says `EMULATED = True`: models run there, but their time
means nothing; `SERVES` says what such a device is for. One whose devices compute with other kernels of their runtime
than the fastest names them in `KERNELS`: see `kernels` of hwnas.device.Job. One whose figures a tool estimates says
`ESTIMATES = True`: nothing runs, the figures are the same each time, and they tell what each layer of a network takes.
Its function `set_up(device) -> Path` makes what it needs here, and returns where that is. Its function `starts(device)
-> str` names the program or host that the device's file has started or reached, empty for none: the user agrees to that
once. Of a plug-in without it, the user agrees to the whole file.
"""

import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from hwnas.device.device import Device
from hwnas.errors import InputError
from hwnas.support import check_trusted, commands, plugins


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


def is_set_up(device: Device) -> bool:
    """Return whether a device needs something that `hwnas devices setup` makes."""
    return hasattr(plugins.load("transports", device.transport), "set_up")


def kernels_of(device: Device) -> str:
    """Return which kernels of its runtime a device has, where they are not the fastest."""
    return str(getattr(plugins.load("transports", device.transport), "KERNELS", ""))


def runs_python(device: Device) -> bool:
    """Return whether a device computes what it is told to: one whose transport times models by itself does not."""
    return not hasattr(plugins.load("transports", device.transport).Transport, "time")


def is_estimated(device: Device) -> bool:
    """Return whether a device's figures are a tool's estimates; raises UnknownNameError for an unknown transport."""
    return bool(getattr(plugins.load("transports", device.transport), "ESTIMATES", False))


def check_times(device: Device) -> None:
    """Raise InputError, with what it is for, for a device whose time means nothing."""
    if is_emulated(device):
        serves = getattr(plugins.load("transports", device.transport), "SERVES", "check exported files on it")
        raise InputError(
            f"only a real device has a latency; {device.name} is emulated, which serves to {serves}. "
            f"Type: {commands.verify(device=device.name)}"
        )


def check_starts(device: Device) -> None:
    """Raise InputError where a device's file names a program or a host that its user has not agreed to.

    What hwnas ships, and a device that was made in Python, is trusted. A program is agreed to with its content.
    """
    if device.file is None:
        return
    module = plugins.load("transports", device.transport)
    if not hasattr(module, "starts"):
        check_trusted(f"transport {device.transport}", device.model_dump_json().encode(), named_by=str(device.file))
    elif what := module.starts(device):
        program = shutil.which(what)  # where there is none, nothing can be started
        named = str(Path(program).absolute()) if program else what
        check_trusted(named, _content(program), named_by=str(device.file))


def _content(program: str | None) -> bytes:
    try:
        return Path(program).read_bytes() if program else b""
    except PermissionError:  # it may be started all the same
        return b""


def open_transport(device: Device) -> Transport:
    """Open the device's transport, once its user has agreed to what its file names.

    Raises UnknownNameError, which lists the known ones, InputError where that is not agreed to, and DeviceError where
    the device cannot be reached.
    """
    check_starts(device)
    transport: Transport = plugins.load("transports", device.transport).Transport(device)
    return transport
