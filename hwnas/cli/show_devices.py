"""Prints what `hwnas devices` and `hwnas verify` return."""

from typing import TYPE_CHECKING

from hwnas.cli.show import print_table
from hwnas.errors import printable
from hwnas.support import commands

if TYPE_CHECKING:
    from hwnas.verbs.devices import AddedDevice, FoundDevice, FoundSetting, SetUpDevice
    from hwnas.verbs.verify import Verified


def show_devices(listed: "list[FoundDevice]") -> None:
    """Print the devices and their settings, with what is missing and what to type next."""
    if not listed:
        print(f"there are no devices. Type: {commands.devices_add(setting='tflite-fp32-1t')}")
    for device in listed:
        head = f"{device.name} ({device.transport})" if device.transport else device.name
        print(printable(f"{head}: {device.path}" + f"; {device.description}" * bool(device.description)))
        if device.problem:
            print(printable(f"  {device.problem}"))
        for setting in device.settings:
            print(f"  {setting.name}: {_state(setting)}")
            if setting.missing:
                print(printable(f"    {setting.missing}"))
            if setting.next:
                print(printable(f"    next: {setting.next}"))


def _state(setting: "FoundSetting") -> str:
    reached = {None: "not tried", True: f"runs, {setting.runtime}", False: "cannot run now"}[setting.reached]
    return f"{reached}; " + (f"table {setting.table}" if setting.table else "no table yet")


def show_added(added: "AddedDevice") -> None:
    """Print where a new device's file is, and what to type next."""
    from hwnas.device import asked_device
    from hwnas.device.transports import is_emulated, is_set_up

    print(f"{added.path}: {', '.join(added.settings)}")
    device = asked_device(added.path)
    first = commands.devices_setup(added.name) if is_set_up(device) else commands.devices()
    second = commands.verify(device=added.name) if is_emulated(device) else commands.profile(added.name)
    print(f"next: {first}, then {second}")


def show_set_up(made: "SetUpDevice") -> None:
    """Print where an emulated device's files are, and what to type next."""
    print(f"{made.name} is ready, in {made.folder}")
    print(f"next: {commands.verify(device=made.name)}")


def show_verified(verified: "list[Verified]") -> None:
    """Print how each file compares with PyTorch here, and on a device with here; instructions or the arena with it."""
    is_micro = any(file.arena_bytes is not None for file in verified)
    rows = []
    for file in verified:
        steps = file.steps
        error = f"{file.relative_error:.1e} of the largest" if steps is None else f"{steps} quantisation steps"
        counted = "not counted" if file.instructions is None else f"{file.instructions:,}"
        counted = f"{file.arena_bytes:,} bytes" if file.arena_bytes is not None else counted
        state = "the same" if file.computes else "NOT the same" if file.as_pytorch else "NOT as PyTorch"
        rows.append([file.file, file.setting, _beside_pytorch(file), error, state, counted])
    last = "arena" if is_micro else "instructions an inference"
    columns = ["file", "setting", "beside PyTorch", "largest difference", "outputs", last]
    beside = "TFLite's reference kernels" if is_micro else "this machine"
    print_table(columns, rows, title=f"on {verified[0].device}, beside {beside}")
    for file in verified:
        if file.lacking:
            print(printable(f"{file.file} does NOT fit: {file.lacking}"))


def _beside_pytorch(file: "Verified") -> str:
    """Return how a file's outputs here compare with PyTorch's."""
    if file.check_error is None or file.check_agreement is None:
        return "not compared"
    if file.precision == "fp32":
        return f"{file.check_error:.1e} of the largest"
    return f"{file.check_agreement:.0%} the same class"
