"""Prints what `hwnas devices` and `hwnas verify` return."""

from typing import TYPE_CHECKING

from hwnas.cli.show import print_table
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
        print(f"{head}: {device.path}" + f"; {device.description}" * bool(device.description))
        if device.problem:
            print(f"  {device.problem}")
        for setting in device.settings:
            print(f"  {setting.name}: {_state(setting)}")
            if setting.missing:
                print(f"    {setting.missing}")
            if setting.next:
                print(f"    next: {setting.next}")


def _state(setting: "FoundSetting") -> str:
    reached = {None: "not tried", True: f"runs, {setting.runtime}", False: "cannot run now"}[setting.reached]
    return f"{reached}; " + (f"table {setting.table}" if setting.table else "no table yet")


def show_added(added: "AddedDevice") -> None:
    """Print where a new device's file is, and what to type next."""
    from hwnas.device import load_device
    from hwnas.device.transports import is_emulated

    print(f"{added.path}: {', '.join(added.settings)}")
    first, second = commands.devices(), commands.profile(added.name)
    if is_emulated(load_device(added.path)):
        first, second = commands.devices_setup(added.name), commands.verify(device=added.name)
    print(f"next: {first}, then {second}")


def show_set_up(made: "SetUpDevice") -> None:
    """Print where an emulated device's files are, and what to type next."""
    print(f"{made.name} is ready, in {made.folder}")
    print(f"next: {commands.verify(device=made.name)}")


def show_verified(verified: "list[Verified]") -> None:
    """Print how each file compares with PyTorch here, and on a device with here; and instructions where counted."""
    rows = []
    for file in verified:
        steps = file.steps
        error = f"{file.relative_error:.1e} of the largest" if steps is None else f"{steps} quantisation steps"
        counted = "not counted" if file.instructions is None else f"{file.instructions:,}"
        state = "the same" if file.fine else "NOT the same" if file.as_pytorch else "NOT as PyTorch"
        rows.append([file.file, file.setting, _beside_pytorch(file), error, state, counted])
    columns = ["file", "setting", "beside PyTorch", "largest difference", "outputs", "instructions an inference"]
    print_table(columns, rows, title=f"on {verified[0].device}, beside this machine")


def _beside_pytorch(file: "Verified") -> str:
    """Return how a file's outputs here compare with PyTorch's."""
    if file.check_error is None or file.check_agreement is None:
        return "not compared"
    if file.precision == "fp32":
        return f"{file.check_error:.1e} of the largest"
    return f"{file.check_agreement:.0%} the same class"
