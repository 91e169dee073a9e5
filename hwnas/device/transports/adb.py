"""Android phones: files and shell commands go by the `adb` command; benchmark_model times the models.

A phone has no Python, so device/runner.py cannot run there: `time` does a runner's job instead. Whatever `adb shell`
says, a command has come to its end only when the end line, which is echoed after it, has come too: `adb shell` ends
with status 0 when the phone goes away in a run, and hangs when the phone does. Every command has a limit of time and is
killed then.
"""

import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hwnas.device.device import Device
from hwnas.device.runner import Event, Job, Patience, RunnerError
from hwnas.device.transports import _benchmark_model
from hwnas.device.transports._benchmark_model import Report, ToolError
from hwnas.device.transports._bounds import run_bounded
from hwnas.errors import DeviceError, InputError
from hwnas.support import expanded, is_scarcity

_PATIENCE_S = 30.0  # for adb and the phone to answer
_MEGABYTE_S = 1.0  # to push a megabyte, at most
_RUN_S = 2 * _benchmark_model.MAX_S + 60.0  # for a run of the tool: warm-up, timed calls, and loading
_CLOSE_S = 5.0  # to tidy up on a phone that may be gone
_END = "HWNAS_END"  # and the command's status: the end line
_ANSWER = "HWNAS_ANSWER"  # a line before each answer of several
_ENDED = re.compile(rf"(.*)\n{_END} (\d{{1,3}})\s*\Z", re.DOTALL)
_TAIL = 500  # characters of output in an error
_CLOCKS = {"frequencies": "scaling_cur_freq", "allowed": "scaling_max_freq", "highest": "cpuinfo_max_freq"}
_STATES = {
    "unauthorized": "allow USB debugging on the phone's screen",
    "offline": "type `adb reconnect offline`, or plug it in again",
}


def starts(device: Device) -> str:
    """Return the command `adb` that a device's file names."""
    return device.adb


class Transport:
    """See hwnas.device.transports.Transport. It runs no Python but has `time`: hwnas.latency.lines.TimesModels."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._serial = self._choose()
        self._folder = f"{device.folder or '/data/local/tmp'}/hwnas-{secrets.token_hex(4)}"
        self._files = 0
        self._ask(f"mkdir -p {shlex.quote(self._folder)}", rule="`folder` must be one that files may be put into")

    def put(self, path: Path) -> str:
        """Push the file; it stays on the phone until `close`."""
        if not path.is_file():
            raise InputError(f"what is brought to device {self._device.name} must be a file; got {path}")
        self._files += 1
        there = f"{self._folder}/{self._files}-{path.name}"
        patience_s = _PATIENCE_S + _MEGABYTE_S * path.stat().st_size / 1e6
        pushed = self._adb("-s", self._serial, "push", str(path), there, patience_s=patience_s)
        if pushed.returncode != 0:
            said = (pushed.stderr + pushed.stdout).strip()[-_TAIL:]
            raise DeviceError(f"a file must come to {self._where}; got {said} for {path}. {self._look}")
        return there

    def run(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """Raise DeviceError: there is no Python."""
        raise DeviceError(f"Python must not be asked for on {self._where}, which has none; got {shlex.join(arguments)}")
        yield ""

    def time(self, job: Job) -> Generator[Event, None, None]:
        """Do the job, whose paths are the phone's, by benchmark_model; yield the events of device/runner.py's lines.

        Raises DeviceError where the phone does not answer any more.
        """
        try:
            tool = self._tool(job)
        except RunnerError as error:
            yield {"error": str(error)}
            return
        yield {"conditions": self._conditions(tool, job)}
        patience = Patience(job)  # the canary tells it; to ask the phone for its clock would take as long as a turn
        try:
            yield from _benchmark_model.time_models(job, lambda model: self._turn(tool, model, job), patience)
        except ToolError as error:  # on the canary, a model that every tool runs
            yield {"error": str(error)}
            return
        yield {"end": len(job.models), "conditions": self._conditions(tool, job), "pace": patience.pace}

    def close(self) -> None:
        """Remove the files from the phone, if it still answers."""
        folder, self._folder = self._folder, ""
        if folder:
            try:
                self._shell(f"rm -rf {shlex.quote(folder)}", patience_s=_CLOSE_S)
            except DeviceError:
                return  # it was said before, or nothing was asked of the phone since

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Which phone.

    @property
    def _where(self) -> str:
        return f"phone {self._serial} (device {self._device.name})"

    @property
    def _look(self) -> str:
        return f"See whether it is still there: {self._device.adb} devices"

    def _choose(self) -> str:
        """Return the serial of the device's phone. Raises DeviceError unless it is attached and ready."""
        name, serial = self._device.name, self._device.serial
        phones = self._attached()
        listed = ", ".join(sorted(phones)) or "none"
        if not serial and len(phones) > 1:
            example = sorted(phones)[0]
            raise DeviceError(
                f"`serial` of device {name} must say which phone, as several are attached; got none of {listed}. "
                f'Write for instance serial = "{example}" in devices/{name}.toml'
            )
        if not phones or (serial and serial not in phones):
            raise DeviceError(
                f"the phone of device {name}, {serial or 'any'}, must be attached; got {listed}. Plug it in (or type "
                f"`{self._device.adb} connect HOST:PORT`) until `{self._device.adb} devices` lists it, or correct "
                f"`serial` in devices/{name}.toml"
            )
        chosen = serial or next(iter(phones))
        if phones[chosen] != "device":
            todo = _STATES.get(phones[chosen], "see what is wrong")
            raise DeviceError(
                f"phone {chosen} (device {name}) must be ready; got {phones[chosen]!r}: {todo}, "
                f"until `{self._device.adb} devices` says `device`"
            )
        return chosen

    def _attached(self) -> dict[str, str]:
        """Return the state of every attached phone by its serial."""
        listed = self._adb("devices", patience_s=_PATIENCE_S)
        if listed.returncode != 0:
            raise DeviceError(f"`{self._device.adb} devices` must end with status 0; got {listed.stderr.strip()}")
        lines = (line.partition("\t") for line in listed.stdout.splitlines())
        return {serial: state.strip() for serial, tab, state in lines if tab}

    # What is asked of it.

    def _adb(self, *arguments: str, patience_s: float) -> subprocess.CompletedProcess[str]:
        """Run adb. Raises DeviceError where there is none, and after `patience_s`, when it is killed."""
        command = [self._device.adb, *arguments]
        try:
            return run_bounded(command, patience_s=patience_s, where=f"device {self._device.name}")
        except OSError as error:
            if is_scarcity(error):
                raise
            raise DeviceError(
                f"`adb` of device {self._device.name} must be a command that can be started; got {command[0]}: "
                f"{error.strerror}. Install it (Debian: apt-get install adb), or correct it in "
                f"devices/{self._device.name}.toml"
            ) from None
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"device {self._device.name} must answer within {patience_s:g} s; got nothing, and ended: "
                f"{shlex.join(command)}"
            ) from None

    def _shell(self, command: str, *, patience_s: float = _PATIENCE_S) -> tuple[int, str]:
        """Run a command on the phone; return its exit status and what it wrote to both outputs.

        Raises DeviceError where it has not come to its end.
        """
        line = f"({command}\n) 2>&1 </dev/null; status=$?; echo; echo {_END} $status"
        ran = self._adb("-s", self._serial, "shell", line, patience_s=patience_s)
        output = ran.stdout.replace("\r\n", "\n")
        ended = _ENDED.match(output)
        if ended is None:
            said = (output + ran.stderr).strip()[-_TAIL:] or "no output"
            raise DeviceError(
                f"a command on {self._where} must come to its end; it was cut short (adb said status "
                f"{ran.returncode}) in {command}, after {said}. {self._look}"
            )
        return int(ended[2]), ended[1]

    def _ask(self, command: str, *, rule: str) -> str:
        """Return what a command writes. Raises DeviceError, with the rule, where its status is not 0."""
        status, output = self._shell(command)
        if status != 0:
            raise DeviceError(
                f"{rule} on {self._where}; got {output.strip()[-_TAIL:]}. "
                f"Correct it in devices/{self._device.name}.toml"
            )
        return output

    # What is timed there.

    def _tool(self, job: Job) -> str:
        """Bring benchmark_model there, if need be; return its path there. Raises RunnerError where it cannot serve."""
        name, path = self._device.name, self._device.benchmark_model
        if job.runtime != "tflite":
            raise RunnerError(
                f"the runtime must be tflite, as benchmark_model times nothing else; got {job.runtime}. "
                f"Name another setting of device {name}, or correct devices/{name}.toml"
            )
        if not path:
            raise RunnerError(
                f"a device with transport adb must name TFLite's benchmark_model for its processor; got none. "
                f'Write benchmark_model = "PATH" (here, or on the phone) in devices/{name}.toml'
            )
        here = expanded(path)
        if job.accelerator == "npu" and not self._device.nnapi_accelerator:
            raise RunnerError(
                f"device {name} must say which of the phone's accelerators the npu is; got none. Write "
                f'nnapi_accelerator = "NAME" in devices/{name}.toml, one of those that benchmark_model lists when '
                "it is run with --use_nnapi=true (NNAPI accelerators available); nnapi-reference is the CPU"
            )
        there = self.put(here) if here.is_file() else path
        quoted = shlex.quote(there)
        status, _ = self._shell(f"chmod 755 {quoted} 2>/dev/null; test -f {quoted} && test -x {quoted}")
        if status != 0:
            raise RunnerError(
                f"benchmark_model must be a program here or on the phone; got {path}, which is neither. "
                f"Correct it in devices/{name}.toml"
            )
        return there

    def _turn(self, tool: str, model: str, job: Job) -> Report:
        """Run the tool once. Raises ToolError where it fails, DeviceError where the phone does."""
        npu = self._device.nnapi_accelerator
        command = _benchmark_model.command(tool, model, job, nnapi_accelerator=npu)
        if cores := job.cores or self._device.cores:
            command = f"taskset {sum(1 << core for core in cores):x} {command}"
        return _benchmark_model.read(*self._shell(command, patience_s=_RUN_S), processor=job.accelerator)

    def _conditions(self, tool: str, job: Job) -> Event:
        """Return the fields of hwnas.latency.measure.Conditions, as they are now."""
        cores = sorted(job.cores or self._device.cores)
        told = self._answers(_questions(tool, cores))
        model, platform = told["model"].strip(), told["platform"].strip()
        temperatures = [value / 1e3 for value in _numbers(told["temperatures"])]
        return {
            "cpu": f"{model} ({platform})" if model and platform else model or platform or told["arch"].strip(),
            "cores": len(told["cores"].split()),
            "arch": told["arch"].strip(),
            "runtime": job.runtime,
            "runtime_version": f"benchmark_model {(told['tool'].split() or ['unknown'])[0][:16]}",
            "threads": job.threads,
            "pinned": cores or None,
            "governor": told["governor"].strip() or None,
            "frequency_mhz": [round(value / 1e3, 1) for value in _numbers(told["frequencies"])],
            "load": next(iter(_numbers(told["load"])), None),
            "others_busy": None,
            "temperature_c": max((value for value in temperatures if 0 < value < 150), default=None),
            "throttle_count": None,
            "clock_limit": _least_share(_numbers(told["allowed"]), _numbers(told["highest"])),
            "firmware_flags": None,
            "python": "",
            "numpy": "",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _answers(self, questions: dict[str, str]) -> dict[str, str]:
        """Return what the commands write to standard output, by name, in one call of adb."""
        script = "\n".join(f"echo; echo {_ANSWER}; ({command}) 2>/dev/null" for command in questions.values())
        _, output = self._shell(script)
        answers = output.split(f"{_ANSWER}\n")[1:]
        if len(answers) != len(questions):
            raise DeviceError(
                f"{self._where} must answer {len(questions)} questions; got {len(answers)} answers. {self._look}"
            )
        return dict(zip(questions, answers, strict=True))


def _questions(tool: str, cores: Sequence[int]) -> dict[str, str]:
    """Return the commands whose output makes the conditions; `cores` are the pinned ones."""
    cpu = "/sys/devices/system/cpu/cpu"
    folders = " ".join(f"{cpu}{core}/cpufreq/" for core in cores) or f"{cpu}[0-9]*/cpufreq/"
    return {
        "model": "getprop ro.product.model",
        "platform": "getprop ro.board.platform",
        "cores": f"ls -d {cpu}[0-9]*",  # nproc leaves out those that sleep at the moment
        "arch": "uname -m",
        "load": "cat /proc/loadavg",
        "governor": f"cat {cpu}{cores[0] if cores else 0}/cpufreq/scaling_governor",
        **{name: "cat " + folders.replace("/cpufreq/", f"/cpufreq/{file}") for name, file in _CLOCKS.items()},
        "temperatures": "cat /sys/class/thermal/thermal_zone*/temp",
        "tool": f"sha256sum {shlex.quote(tool)} || md5sum {shlex.quote(tool)} || echo unknown",
    }


def _numbers(text: str) -> list[float]:
    """Return the numbers among a text's words."""
    return [float(word) for word in text.split() if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", word)]


def _least_share(allowed: Sequence[float], highest: Sequence[float]) -> float | None:
    """Return the least of what cores may run at as a share of what they could; None where the phone does not tell."""
    shares = [round(now / most, 3) for now, most in zip(allowed, highest, strict=False) if now and most]
    return min(shares, default=None)
