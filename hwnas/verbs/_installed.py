"""What `hwnas doctor` says of the programs and packages that are installed here, without loading the large ones."""

import os
import platform
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from hwnas.errors import short
from hwnas.support import commands
from hwnas.support.version import __version__

_NAME = "hwnas"
_LOADING_S = 30.0  # for torch to be loaded and to look for its GPU
_HAS_GPU = "import torch; print(torch.cuda.is_available())"
_PACKAGES = {  # those that some can do without: what each is for, and what pip is to be told
    "psycopg": ("`--storage postgresql://...`", "psycopg[binary]"),  # SQLAlchemy's, from 2.1 on
    "ethos-u-vela": ("Ethos-U NPUs, as Vela estimates them", "hwnas[npu]"),
    "tflite-micro": ("microcontrollers", "hwnas[micro]"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, whether it is fine, and what to type; `needed`: a run on this machine needs it."""

    about: str
    state: Literal["fine", "advice", "broken"]
    words: str
    next: str = ""
    needed: bool = False


def installed() -> Iterator[Check]:
    """Yield what is to be said of hwnas itself, of what it needs, and of what it can do without."""
    yield Check(_NAME, "fine", f"{__version__}, Python {platform.python_version()}, {sys.executable}")
    yield from filter(None, [namesake()])
    yield from _requirements()
    if find_spec("torch"):
        yield _torch()
    yield from _optional()


def namesake() -> Check | None:
    """Say where other packages, such as slimnet 0.2, have a folder `hwnas` of their own; None where none has."""
    others = sorted({*metadata.packages_distributions().get(_NAME, [])} - {_NAME})
    if not others:
        return None
    words = (
        f"{', '.join(others)} installs a package `{_NAME}` as well: of files of one name those are there that were "
        "installed last, and they go with either"
    )
    remedy = f"{commands.pip_uninstall(others, python=sys.executable)}, then install hwnas again"
    return Check(_NAME, "broken", words, remedy)


def _requirements() -> Iterator[Check]:
    """Yield a line on all that is there as hwnas needs it, and one on each that is not."""
    there = []
    for text in metadata.requires(_NAME) or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        wanted = f"{requirement.name}{requirement.specifier}"
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            words = f"hwnas needs {wanted}; got {version or 'none'}"
            command = str(commands.pip_install([wanted], python=sys.executable))
            yield Check(requirement.name, "broken", words, command, True)
        else:
            there.append(f"{requirement.name} {version}")
    yield Check("packages", "fine", ", ".join(there))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> Check:
    """Say what torch was built for, and whether it reaches the GPU that is there, which alone loads it."""
    cuda = _torch_version().get("cuda")
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    if not _gpus():
        return Check("torch", "fine", f"{built}; there is no NVIDIA GPU: training takes the CPU")
    if not cuda:
        wanted = [text for text in metadata.requires(_NAME) or [] if Requirement(text).name.startswith("torch")]
        command = commands.pip_install(wanted, python=sys.executable, anew=True)
        return Check("torch", "advice", f"{built}, beside an NVIDIA GPU, which training cannot use", str(command))
    if said := _without_gpu():
        return Check("torch", "advice", f"{built} does not reach the NVIDIA GPU that is there: {said}", "nvidia-smi")
    return Check("torch", "fine", f"{built}; training takes the GPU")


def _torch_version() -> dict[str, Any]:
    """Return what torch/version.py says, without loading torch."""
    spec = find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return runpy.run_path(str(path)) if path and path.is_file() else {}


def _gpus() -> list[Path]:
    """Return the NVIDIA GPUs that the kernel has a file for."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def _without_gpu() -> str:
    """Return why torch, in a process of its own, cannot use a GPU; nothing where it can."""
    command = [sys.executable, "-c", _HAS_GPU]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOADING_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it must be loaded within {_LOADING_S:g} s; nothing came"
    if done.stdout.strip() == "True":
        return ""
    return short((done.stderr.strip().splitlines() or ["its driver may be older than that CUDA wants"])[-1])


def _optional() -> Iterator[Check]:
    """Yield what some verbs need, and others do not."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as torch.compile has it
    programs = {
        "adb": ("phones", "apt-get install adb"),
        "qemu-aarch64": ("an emulated Arm", "apt-get install qemu-user"),
        compiler: ("`--compile` when the CPU trains", "apt-get install g++"),
        "cc": ("`--compile` when a GPU trains, and an emulated Arm", "apt-get install gcc libc6-dev"),
    }
    for program, (purpose, command) in programs.items():
        yield _option(program, purpose, shutil.which(program), command)
    for package, (purpose, wanted) in _PACKAGES.items():
        yield _option(package, purpose, _version(package), str(commands.pip_install([wanted], python=sys.executable)))


def _option(name: str, purpose: str, where: str | None, command: str) -> Check:
    if where:
        return Check(name, "fine", f"{where}, for {purpose}")
    return Check(name, "advice", f"not installed; it is only for {purpose}", command)
