"""Arm's Ethos-U NPUs by way of their compiler, Vela, on this machine: it estimates the cycles of an int8 TFLite file.

`time` does a runner's job, as for a device without Python: nothing is run, and nothing measured. Vela's estimates are
the same each time, so a job has one round; other versions of Vela estimate otherwise, and a table is of one. What it
leaves to the CPU has no cycles, and Vela ends well all the same: such a file is refused, with the operators' names.
"""

import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.device.device import Device
from hwnas.device.runner import Event, Job, RunnerError
from hwnas.device.transports import local
from hwnas.errors import DeviceError
from hwnas.support import files, reasons, temporary_folder

ESTIMATES = True
_PACKAGE, _VERSION = "ethos-u-vela", "5.2"  # whose files _vela_worker.py reads
_INSTALL = "pip install 'hwnas[npu]'"
_WORKER = Path(__file__).with_name("_vela_worker.py")
_EXAMPLE = {
    "accelerator_config": "ethos-u55-128",
    "system_config": "Ethos_U55_High_End_Embedded",
    "memory_mode": "Shared_Sram",
}
_NAMED = 5  # operators of many
_DIGITS = 9  # of milliseconds: a cycle at 1 GHz has six


def starts(device: Device) -> str:
    """Return nothing: what is started came with hwnas."""
    return ""


class Transport(local.Transport):
    """This machine's, which runs no Python for others but has `time`: hwnas.latency.lines.TimesModels."""

    def run(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """Raise DeviceError: there is no Python."""
        raise DeviceError(f"Python must not be asked for on {self._device.name}, which is an NPU; got {arguments}")
        yield ""

    def time(self, job: Job) -> Generator[Event, None, None]:
        """Do the job by Vela's estimates; yield the events of device/runner.py's lines, and each layer's latency.

        Raises DeviceError where Vela crashes.
        """
        try:
            version = vela_version()
            conditions = self._conditions(job, version)
            yield {"conditions": conditions}
            if job.models:
                yield from self._estimated(job, version)
        except RunnerError as error:
            yield {"error": str(error)}
            return
        yield {"end": len(job.models), "conditions": conditions, "pace": {}}

    def _estimated(self, job: Job, version: str) -> Iterator[Event]:
        """Yield a line per model. Raises RunnerError where Vela does not take the device's configuration."""
        with temporary_folder() as folder:
            path = folder / "job.json"
            files.write_json(path, {"models": job.models, "arguments": self._arguments})
            for line in super().run([str(_WORKER), str(path)]):
                said = _said(line)
                if said.name is None:
                    raise RunnerError(
                        f"Vela must take what devices/{self._device.name}.toml says of the NPU; got: {said.error}"
                    )
                yield _failure(said) or _estimate(said, version)

    @property
    def _arguments(self) -> list[str]:
        config = [f"--{name.replace('_', '-')}={value}" for name, value in self._configuration.items()]
        return [*config, "--config=Arm/vela.ini"]

    @property
    def _configuration(self) -> dict[str, str]:
        return {name: getattr(self._device, name) for name in _EXAMPLE}

    def _conditions(self, job: Job, version: str) -> Event:
        """Return the fields of hwnas.latency.Conditions. Raises RunnerError for a job that Vela cannot do."""
        name, config = self._device.name, self._configuration
        if missing := [key for key, value in config.items() if not value]:
            example = ", ".join(f'{key} = "{value}"' for key, value in _EXAMPLE.items())
            raise RunnerError(
                f"a device with transport vela must say what NPU it is; it lacks {', '.join(missing)}. "
                f"Write in devices/{name}.toml, for instance, {example}"
            )
        if (job.runtime, job.accelerator, job.threads) != ("tflite", "npu", 1):
            raise RunnerError(
                f"Vela compiles TFLite files for the npu, which has no threads; got runtime {job.runtime}, accelerator "
                f"{job.accelerator} and {job.threads} threads. Name the setting tflite-int8-npu-1t of device {name}"
            )
        return {
            "cpu": ", ".join(config.values()),
            "cores": 1,
            "arch": config["accelerator_config"].rpartition("-")[0],
            "runtime": job.runtime,
            "runtime_version": f"{_PACKAGE} {version}",
            "threads": job.threads,
            "pinned": None,
            "governor": None,
            "frequency_mhz": [],
            "load": None,
            "others_busy": None,
            "temperature_c": None,
            "python": "",
            "numpy": "",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def vela_version() -> str:
    """Return the version of Vela that is installed; raises RunnerError, with what to type, for none and another one."""
    try:
        version = metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        version = "none"
    if not f"{version}.".startswith(f"{_VERSION}."):
        raise RunnerError(f"an NPU is estimated by {_PACKAGE} {_VERSION}; got {version}. Type: {_INSTALL}")
    return version


class _Said(BaseModel):
    """A line of _vela_worker.py; without a name it is about the whole job."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    name: str | None = None
    error: str = ""
    ms: float = Field(default=0.0, ge=0)
    sram_bytes: int = Field(default=0, ge=0)
    layers: tuple[tuple[str, str, int], ...] = ()  # the tensor that each of Vela's operators writes, where, cycles
    clock_hz: float = Field(default=1.0, gt=0)


def _said(line: str) -> _Said:
    try:
        return _Said.model_validate_json(line)
    except ValidationError as error:
        raise DeviceError(f"the worker must write lines as _vela_worker.py says; got {reasons(error)}") from None


def _failure(said: _Said) -> Event | None:
    """Return the line of a model that Vela does not take, or does not take whole; None for one that it does."""
    error = said.error
    left = [name for name, target, _ in said.layers if target != "NPU"]
    if not error and (left or not said.layers):
        named = ", ".join(left[:_NAMED]) + ", ..." * (len(left) > _NAMED)
        error = (
            f"all operators must run on the NPU; Vela leaves {len(left)} of {len(said.layers)} to the CPU, which write "
            f"{named or 'nothing'}. Take a file that is int8 from its input to its output"
        )
    return {"name": said.name, "error": error[:1000]} if error else None


def _estimate(said: _Said, version: str) -> Event:
    """Return the line of a model; of operators that write the same tensor the cycles are summed."""
    cycles: dict[str, int] = defaultdict(int)
    for tensor, _, count in said.layers:
        cycles[tensor] += count
    operators = len(said.layers)
    placement = {"processor": "npu", "whole": True, "operators": operators, "of": operators}
    return {
        "name": said.name,
        "rounds_ms": [[said.ms]],
        "unstable": False,
        "load_ms": None,
        "first_ms": None,
        "peak_memory_bytes": said.sram_bytes,
        "placement": {**placement, "estimated_by": f"Vela {version}"},
        "layers_ms": {tensor: round(count / said.clock_hz * 1e3, _DIGITS) for tensor, count in cycles.items()},
    }
