"""An Arm processor that this machine emulates with qemu-user: files stay where they are, the runner is a child process.

What is computed there is what an Arm computes, and executed instructions are counted. Time means nothing.
"""

from pathlib import Path

from hwnas.device.device import Device
from hwnas.device.transports import local
from hwnas.device.transports._qemu_sysroot import Sysroot
from hwnas.support import cache, expanded

EMULATED = True
SERVES = "check exported files on it and to count their instructions"


def starts(device: Device) -> str:
    """Return the Python of the sysroot in the folder that a device's file names; nothing for one in the cache."""
    return str(sysroot(device).folder / "python") if device.folder else ""


class Transport(local.Transport):
    """See hwnas.device.transports.Transport; raises DeviceError where the sysroot has to be made first."""

    def __init__(self, device: Device) -> None:
        super().__init__(device.model_copy(update={"python": str(sysroot(device).python)}))


def set_up(device: Device) -> Path:
    """Make the device's sysroot, unless it is there; return its folder. Raises DeviceError where that fails."""
    made = sysroot(device)
    made.make()
    return made.folder


def sysroot(device: Device) -> Sysroot:
    """Return the device's sysroot: in its folder, or else in the user's cache."""
    folder = Path(device.folder) if device.folder else cache() / device.name
    return Sysroot(device.name, expanded(folder).absolute())
