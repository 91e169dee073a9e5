"""The files that an emulated Arm processor needs: Debian's Python and libraries, arm64 wheels, the instruction counter.

Packages come from where the machine's own apt and pip take theirs, into a folder of the user's; nothing of the system
is changed and root is not needed. What was downloaded is kept until all is there, so that a second call goes on.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hwnas.device import runner
from hwnas.errors import DeviceError, InputError
from hwnas.support import bar, commands, read_json, write_json

EMULATOR = "qemu-aarch64"
PROCESSOR = "cortex-a72"  # of a Raspberry Pi 4, and of many boards since
_TOOLS = {EMULATOR: "qemu-user", "apt-get": "apt", "dpkg-deb": "dpkg", "cc": "gcc libc6-dev"}  # and Debian's packages
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")  # what these depend on comes along
_WHEELS = ("numpy", "ai-edge-litert", "onnxruntime")  # in the versions that are installed here
_PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")  # older than any glibc of Debian's
_RECORD = "made.json"
_VERSION = 2  # of what is made: a sysroot of another one is made again
_TAIL = 1000  # characters of a program's words in an error
# ai-edge-litert reads there what the processor can do, and crashes on what an x86 says.
_CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
# Nothing of the caller's Python may get in, and what is counted must not depend on chance: not on where the system puts
# the memory either, where it lets itself be asked (some containers refuse). With this name (-0) Python starts itself
# anew by this command, as the transport ssh does.
_PYTHON = """\
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
setarch -R true 2>/dev/null && fixed="setarch -R"
exec $fixed {emulator} -cpu {processor} -seed 1 -L "$here/root" -plugin "$here/count.so" \\
    -U LD_LIBRARY_PATH -U LD_PRELOAD -U PYTHONDONTWRITEBYTECODE -E PYTHONHOME="$here/root/usr" \\
    -E PYTHONPATH="$here/wheels" -E PYTHONNOUSERSITE=1 -E PYTHONHASHSEED=0 \\
    -0 "$here/python" "$here/root/usr/bin/python3" "$@"
"""


_IMPORTS = (
    "import os, sys, runpy; os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1'); "
    "import onnxruntime, ai_edge_litert.interpreter; runpy.run_path(sys.argv[1])"
)


@dataclass(frozen=True, slots=True)
class Sysroot:
    """A sysroot of a device's, made or not."""

    device: str
    folder: Path

    @property
    def python(self) -> Path:
        """The command that runs the Arm Python under emulation; raises DeviceError where it has to be made first."""
        record, wanted = self.record(), _wanted()
        if record != wanted:
            got = "there is none" if record is None else f"it was made for {_versions(record)}"
            raise DeviceError(
                f"device {self.device} needs a sysroot in {self.folder}, for {_versions(wanted)}; {got}. "
                f"Type: {commands.devices_setup(self.device)}"
            )
        return self.folder / "python"

    def record(self) -> dict[str, object] | None:
        """Return what a whole sysroot was made for; None where there is none."""
        try:
            record: dict[str, object] = read_json(self.folder / _RECORD, what="a sysroot's record")
        except InputError:
            return None
        return record

    def make(self) -> None:
        """Make the sysroot unless it is there; raises DeviceError, with the failed program's words and what to do."""
        if self.record() == _wanted():
            return
        self._need_new_folder()
        part = self.folder.with_name(f".{self.folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        steps = _steps(part)
        self._need_tools()
        with bar(f"making the sysroot of {self.device}", len(steps)) as making:
            for what, step in steps.items():
                making.describe(what)
                self._do(what, step)
                making.advance()
        shutil.rmtree(part / "apt")
        write_json(part / _RECORD, _wanted())
        shutil.rmtree(self.folder, ignore_errors=True)
        part.rename(self.folder)

    def _need_new_folder(self) -> None:
        """Raise DeviceError for a folder with something else in it: a sysroot takes its place."""
        if self.folder.exists() and self.record() is None and any(self.folder.iterdir()):
            raise DeviceError(
                f"`folder` of device {self.device} must be a new one, or that of a sysroot; {self.folder} has other "
                f"files. Name another one in devices/{self.device}.toml, or empty it"
            )

    def _need_tools(self) -> None:
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            packages = " ".join(_TOOLS[tool] for tool in missing)
            raise DeviceError(
                f"making the sysroot of {self.device} takes {', '.join(_TOOLS)}; there is no {', '.join(missing)}. "
                f"On Debian, type: sudo apt-get install {packages}"
            )

    def _do(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except subprocess.CalledProcessError as error:
            words = (error.stderr or "nothing on standard error").strip()[-_TAIL:]
            raise DeviceError(
                f"{what} for {self.device} must succeed; got status {error.returncode} from "
                f"{shlex.join(map(str, error.cmd[:2]))} ...: {words}\n"
                f"When that is mended (does the network reach apt's and pip's sources?), type again: "
                f"{commands.devices_setup(self.device)}"
            ) from None


def _steps(part: Path) -> dict[str, Callable[[], None]]:
    """Return what has to be done in a folder, in this order, by a few words each."""
    return {
        "reading Debian's list of arm64 packages": lambda: _apt(part, "update"),
        "downloading arm64 packages": lambda: _apt(
            part, "install", "--download-only", "--yes", "--no-install-recommends", *_PACKAGES
        ),
        "unpacking arm64 packages": lambda: _unpack(part),
        "installing arm64 wheels": lambda: _install_wheels(part),
        "compiling the instruction counter": lambda: _compile_counter(part),
        "trying it": lambda: _try(part),
    }


def _wanted() -> dict[str, object]:
    return {"version": _VERSION, "wheels": {name: metadata.version(name) for name in _WHEELS}}


def _versions(record: dict[str, object]) -> str:
    wheels = record.get("wheels")
    return ", ".join(f"{name} {version}" for name, version in wheels.items()) if isinstance(wheels, dict) else "others"


def _run(command: Sequence[str | Path]) -> str:
    """Run a program and return what it writes; raises CalledProcessError, which has its words."""
    return subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    ).stdout


def _apt(part: Path, *arguments: str) -> None:
    """Run apt-get for arm64 with the machine's own sources, but lists, packages and a status of its own."""
    own = part / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (own / folder).mkdir(parents=True, exist_ok=True)
    (own / "status").touch()  # no package is installed
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # who might not be let into the folder
        "Acquire::Languages": "none",
        "Debug::NoLocking": "1",
        "Dir::State": own,
        "Dir::State::Lists": own / "lists",
        "Dir::State::status": own / "status",
        "Dir::Cache": own,
        "Dir::Cache::archives": own / "archives",
    }
    _run(["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items()), *arguments])


def _unpack(part: Path) -> None:
    shutil.rmtree(part / "root", ignore_errors=True)
    for package in sorted((part / "apt" / "archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", package, part / "root"])
    (part / "root" / "proc").mkdir(exist_ok=True)
    text = "".join(_CPUINFO.format(number=number) for number in range(os.cpu_count() or 1))
    (part / "root" / "proc" / "cpuinfo").write_text(text)


def _install_wheels(part: Path) -> None:
    """Let pip install this machine's versions for the Arm Python; pip keeps what it has downloaded."""
    python = (part / "root" / "usr" / "bin" / "python3").readlink().name.removeprefix("python")
    shutil.rmtree(part / "wheels", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--target", str(part / "wheels"), "--implementation", "cp", "--python-version", python]
    command += [f"--platform={platform}_aarch64" for platform in _PLATFORMS]
    _run([*command, *(f"{name}=={metadata.version(name)}" for name in _WHEELS)])


def _compile_counter(part: Path) -> None:
    source = Path(__file__).with_name("_qemu_count.c")
    _run(["cc", "-O2", "-shared", "-fPIC", f"-DINTERFACE={_interface()}", "-o", part / "count.so", source])


def _interface() -> int:
    """Return the number of the emulator's interface for plug-ins: from 9.0 on it takes none below 2."""
    version = _run([EMULATOR, "--version"]).split()[2]
    return 1 if int(version.partition(".")[0]) < 9 else 2


def _try(part: Path) -> None:
    """Import what runs will import, which leaves it compiled."""
    python = part / "python"
    python.write_text(_PYTHON.format(emulator=EMULATOR, processor=PROCESSOR))
    python.chmod(0o755)
    _run([python, "-c", _IMPORTS, runner.__file__])
