"""`hwnas devices`: lists the devices that can be profiled, reaches each, says what is missing; adds new ones."""

import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import typer
from pydantic import Field

from hwnas.errors import HwnasError, InputError, short
from hwnas.support import (
    AnyNames,
    AnyPath,
    Metavar,
    Options,
    can_ask,
    commands,
    plugins,
    reasons,
    root,
    toml_value,
    trusting,
)
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hwnas.device import Device, Setting
    from hwnas.latency import Conditions

_REMEDIES = {  # by what hwnas/runner.py says is missing: the package to install
    "numpy, which cannot be imported": "numpy",
    "onnxruntime, which cannot be imported": "onnxruntime",
    "ai_edge_litert or tflite_runtime": "ai-edge-litert",
    "tflite_micro, which cannot be imported": "tflite-micro",
}
_SETTING_RULE = "settings are written RUNTIME-PRECISION-THREADSt, with commas between, such as tflite-fp32-1t"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundSetting:
    """One setting of a device: its latency table if it has one, whether it runs now, and what to do next.

    `reached` is None where it was not tried; `runtime` is that which was found; `missing` says why it cannot run, or
    why its table cannot be used.
    """

    name: str
    table: str | None = None
    reached: bool | None = None
    runtime: str = ""
    missing: str = ""
    next: str = ""


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A file devices/NAME.toml; `problem` says what is wrong with one that cannot be read."""

    name: str
    path: str
    transport: str = ""
    description: str = ""
    settings: tuple[FoundSetting, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AddedDevice:
    """The file of a new device."""

    name: str
    path: str
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetUpDevice:
    """An emulated device that can be used, and the folder of what it needs."""

    name: str
    folder: str


class DevicesOptions(Options):
    """The options of `hwnas devices`."""

    reach: bool = Field(default=True, description="try each device and setting")
    patience_s: float = Field(default=30.0, gt=0, description="seconds that a setting has to answer")


class AddOptions(Options):
    """The options of `hwnas devices add`."""

    name: str | None = Field(default=None, kw_only=False, description="the new device's name: a-z, 0-9, - and _")
    transport: str | None = Field(default=None, description="how it is reached; without it local")
    setting: Annotated[AnyNames, Metavar("SETTING,...")] | None = Field(
        default=None, description="its settings, the first one being the default: tflite-fp32-1t,onnx-fp32-1t"
    )
    python: AnyPath | None = Field(
        default=None, description="its interpreter, with numpy and the runtime; without it this one, or python3"
    )
    description: str | None = Field(default=None, description="a line for people")
    set: Annotated[list[str] | None, Metavar("KEY=VALUE")] = Field(
        default=None, description="another field of the file; may be repeated"
    )
    ask: bool | None = Field(default=None, description="ask for what is missing; without it in a terminal")


class SetUpOptions(Options):
    """The options of `hwnas devices setup`."""

    name: AnyPath = Field(default="arm64-qemu", kw_only=False, description="a device that is emulated here")


@takes(DevicesOptions)
def devices(options: DevicesOptions) -> list[FoundDevice]:
    """List the devices, with their settings and tables; reach each, and say what is missing and what to type next.

    To reach one is to start, or to log in to, what its file names: an interpreter, `adb`, an ssh host. What was not
    agreed to before is asked for; where nobody can be asked, it is not reached.

    Raises InputError for a patience that is not above 0. A try that does not answer goes on in a thread that ends with
    the process.
    """
    return found_devices(lambda device: options.patience_s if options.reach else None)


@takes(AddOptions)
def devices_add(options: AddOptions) -> AddedDevice:
    """Write devices/NAME.toml from the options, asking for what is missing.

    What the file names is agreed to thereby.

    Raises InputError for a file that exists, for fields that a device has not, and for what is missing where nobody
    can be asked; UnknownNameError, which lists the known ones, for another transport or runtime.
    """
    from hwnas.device import read_device
    from hwnas.device.transports import check_starts

    fields = {**_given(options), **_pairs(options.set or [])}
    if can_ask() if options.ask is None else options.ask:
        _ask_for_missing(fields)
    for key in ("name", "setting"):
        if not fields.get(key):
            example = commands.devices_add(fields.get("name") or "NAME", setting="tflite-fp32-1t")
            raise InputError(f"a device must have a {key}; got none. Add it: {example}")
    device = _device(fields)
    path = root() / "devices" / f"{device.name}.toml"
    _write(device, path)
    with trusting():  # whoever types it has agreed
        check_starts(read_device(path))
    return AddedDevice(device.name, str(path), tuple(setting.name for setting in device.settings))


def _given(options: AddOptions) -> dict[str, str]:
    """Return the fields that are given, as text."""
    given = {"name": options.name, "transport": options.transport, "python": options.python}
    given |= {"description": options.description, "setting": ",".join(options.setting or ()) or None}
    return {key: str(value) for key, value in given.items() if value is not None}


@takes(SetUpOptions)
def devices_setup(options: SetUpOptions) -> SetUpDevice:
    """Make what an emulated device needs on this machine, once; a second call goes on where the first one stopped.

    Raises InputError for a device that needs nothing, and DeviceError, with what to do, where a step fails.
    """
    from hwnas.device import asked_device

    device = asked_device(options.name)
    transport = plugins.load("transports", device.transport)
    if not hasattr(transport, "set_up"):
        raise InputError(f"only emulated devices are set up; {device.name} has transport {device.transport}")
    return SetUpDevice(device.name, str(transport.set_up(device)))


def found_devices(patience: Callable[["Device"], float | None]) -> list[FoundDevice]:
    """Return the devices, reached all at once; the patience with each is in seconds, None for one to leave alone."""
    from hwnas.device import folders

    paths: dict[str, Path] = {}
    for folder in folders("devices"):
        for path in sorted(folder.glob("*.toml")):
            paths.setdefault(path.stem, path)  # the user's own comes first
    return [found.result() for found in [_begun(path, patience) for path in paths.values()]]


def _begun(path: Path, patience: Callable[["Device"], float | None]) -> "Future[FoundDevice]":
    """Begin to reach a device, once what its file names is agreed to."""
    from hwnas.device import read_device

    try:
        device = read_device(path)
        patience_s = patience(device)
    except HwnasError as error:
        problem = FoundDevice(path.stem, str(path), problem=str(error))
        return _in_thread(lambda: problem)
    refused = "" if patience_s is None else _refused(device)
    return _in_thread(lambda: _found(device, path, patience_s, refused))


def _found(device: "Device", path: Path, patience_s: float | None, refused: str) -> FoundDevice:
    settings: list[FoundSetting] = []
    for setting in device.settings:
        listed = _with_table(device, setting)
        if patience_s is None:
            settings.append(listed)
            continue
        if refused:
            settings.append(replace(listed, reached=False, missing=refused, next=str(commands.devices(trust=True))))
            continue
        try:
            settings.append(_reached(device, setting, listed, patience_s))
        except TimeoutError:
            settings.append(_silent(device, listed, patience_s))
            patience_s = None  # the other settings would not answer either
    return FoundDevice(device.name, str(path), device.transport, device.description, tuple(settings))


def _refused(device: "Device") -> str:
    """Return why what a device's file names is not started; nothing where that was agreed to."""
    from hwnas.device.transports import check_starts

    try:
        check_starts(device)
    except HwnasError as error:
        return str(error)
    return ""


def _with_table(device: "Device", setting: "Setting") -> FoundSetting:
    from hwnas.device.transports import is_emulated
    from hwnas.latency import table_paths

    if is_emulated(device):
        return FoundSetting(setting.name, next=str(commands.verify(device=device.name)))
    try:
        (path,) = table_paths(device.name, setting.name)
    except InputError:
        return FoundSetting(setting.name, next=str(commands.profile(device.name, setting=setting.name)))
    return FoundSetting(setting.name, str(path))


def _reached(device: "Device", setting: "Setting", listed: FoundSetting, patience_s: float) -> FoundSetting:
    """Try a setting; return with it what is missing, or whether its table fits. Raises TimeoutError."""
    from hwnas.latency import read_conditions

    try:
        conditions = _in_thread(lambda: read_conditions(device, setting)).result(timeout=patience_s)
    except HwnasError as error:
        return replace(listed, reached=False, missing=str(error), next=_remedy(str(error), device))
    problem, command = _table_problem(device, setting, listed, conditions)
    return replace(listed, reached=True, runtime=conditions.runtime_version, missing=problem, next=command)


def _silent(device: "Device", listed: FoundSetting, patience_s: float) -> FoundSetting:
    missing = f"device {device.name} must answer within {patience_s:g} s; nothing came"
    remedy = f"see that it is on and connected, then: {commands.devices(patience_s=4 * patience_s)}"
    return replace(listed, reached=False, missing=missing, next=remedy)


def _table_problem(
    device: "Device", setting: "Setting", listed: FoundSetting, conditions: "Conditions"
) -> tuple[str, str]:
    """Return what is wrong with a setting's table, and the command that makes it right; nothing for a good one."""
    from hwnas.latency import LatencyTable, check_conditions

    if listed.table is None:
        return "", listed.next
    try:
        check_conditions(LatencyTable.read(Path(listed.table)), conditions.fingerprint)
    except HwnasError as error:
        return str(error), str(commands.profile(device.name, setting=setting.name, fresh=True))
    return "", ""


def _in_thread(call: Callable[[], T]) -> "Future[T]":
    """Begin a call in a thread that ends with the process: nobody has to wait for it."""
    from concurrent.futures import Future
    from threading import Thread

    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  it is raised in the caller's thread
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome


def _remedy(error: str, device: "Device") -> str:
    """Return what to type where a device lacks something."""
    from hwnas.device.transports import kernels_of

    is_here = device.transport == "local" or kernels_of(device) == "micro"
    package = next((package for words, package in _REMEDIES.items() if words in error), None)
    python = device.python or (sys.executable if is_here else "python3")
    if package is None:
        return f"when that is mended: {commands.devices()}"
    there = "" if is_here else f"on {device.name}: "
    return f"{there}{commands.pip_install([package], python=python)}"


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts if "=" in text)
    if len(pairs) < len(texts):
        raise InputError(f"--set takes KEY=VALUE, each key once; got {', '.join(texts)}")
    return pairs


def _ask_for_missing(fields: dict[str, str]) -> None:
    """Ask on the terminal for what is not given yet."""
    questions = {
        "name": ("name of the device", None),
        "transport": (f"transport ({', '.join(plugins.names('transports'))})", "local"),
        "setting": (f"settings (runtimes: {', '.join(plugins.names('formats'))})", "tflite-fp32-1t"),
        "python": ("its Python; empty for this one, or python3", ""),
        "description": ("description", ""),
    }
    for key, (question, default) in questions.items():
        if key not in fields:
            fields[key] = typer.prompt(question, default=default, show_default=bool(default), err=True)
    others = ", ".join(key for key in _device_fields() if key not in {*fields, "settings"})
    while answer := typer.prompt(
        f"another field, KEY=VALUE ({others}); empty to end", default="", show_default=False, err=True
    ):
        fields.update(_pairs([answer]))


def _device_fields() -> list[str]:
    from hwnas.device import Device

    return list(Device.model_fields)


def _device(fields: Mapping[str, str]) -> "Device":
    """Return the device with these fields, `setting` being the names of its settings."""
    from pydantic import ValidationError

    from hwnas.device import Device

    values: dict[str, Any] = {key: _value(key, text) for key, text in fields.items() if key != "setting"}
    values["settings"] = [_setting(name.strip()) for name in fields["setting"].split(",")]
    try:
        device = Device.model_validate(values)
    except ValidationError as error:
        known = ", ".join(_device_fields())
        raise InputError(f"a device must have fields that fit; {reasons(error)}. The fields: {known}") from None
    plugins.load("transports", device.transport)
    return device


def _value(key: str, text: str) -> Any:
    """Return a field's value: text, which pydantic turns into a number where it must be one, or a list."""
    from hwnas.device import Device

    field = Device.model_fields.get(key)
    if field is None or get_origin(field.annotation) not in (tuple, list):
        return text
    return [part.strip() for part in text.strip("[] ").split(",") if part.strip()]


def _setting(name: str) -> "Setting":
    from pydantic import ValidationError

    from hwnas.device import Setting

    head, _, threads = name.rpartition("-")
    accelerator = head.rpartition("-")[2] if head.endswith(("-gpu", "-npu")) else "cpu"
    runtime, _, precision = head.removesuffix(f"-{accelerator}").rpartition("-")
    if not precision or not threads.endswith("t"):
        raise InputError(f"{_SETTING_RULE}; got {short(name)}")
    try:
        fields = {"runtime": runtime, "precision": precision, "threads": threads[:-1], "accelerator": accelerator}
        setting = Setting.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"{_SETTING_RULE}; got {short(name)}: {error.errors()[0]['msg']}") from None
    plugins.load("formats", setting.runtime)
    return setting


def _write(device: "Device", path: Path) -> None:
    """Write a device's file, which must be read back as it is; one that a call before this one wrote may be there."""
    from hwnas.support import write_text

    values = device.model_dump(mode="json", exclude_defaults=True, exclude={"settings"})
    lines = [f"{key} = {toml_value(value)}" for key, value in {**values, "transport": device.transport}.items()]
    for setting in device.settings:
        lines += [
            "",
            "[[settings]]",
            *(f"{key} = {toml_value(value)}" for key, value in setting.to_json().items() if value != []),
        ]
    text = "\n".join(lines) + "\n"
    try:
        same = type(device).model_validate(tomllib.loads(text.encode().decode())) == device
    except ValueError:  # of TOML, of pydantic and of UTF-8
        same = False
    if not same:
        raise InputError(
            f"a device's fields must be text that TOML can hold; got {values!r}. Leave out special characters"
        )
    if path.exists():
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise InputError(f"a new device's file must not exist; {path} does. Edit it, or choose another name")
    write_text(path, text)
