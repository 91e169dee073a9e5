"""What a training takes of the machine and the process: device, precision, memory, random state."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch

from hwnas.errors import InputError

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_RANDOM_STATE = threading.RLock()
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where and how to compute: `autocast` is the reduced precision, None for fp32 throughout."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format


def choose(device: str, *, precision: str, channels_last: bool | None) -> Hardware:
    """Return what is asked for, or for `auto` the best at hand; channels_last=None leaves the layout to the device.

    Raises InputError for a device that is not there.
    """
    found = _device(device)
    if precision == "auto":
        precision = "fp32" if found.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported(False) else "fp16"
    channels_last = found.type != "mps" if channels_last is None else channels_last
    return Hardware(found, _AUTOCAST[precision], torch.channels_last if channels_last else torch.contiguous_format)


def _device(name: str) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(known for known, is_there in there.items() if is_there)
    if not there.get(name.split(":")[0]):
        found = ", ".join(known for known, is_there in there.items() if is_there)
        raise InputError(f"training: device must be auto or one that is there ({found}); got {name}; take auto")
    return torch.device(name)


@contextmanager
def seeded(seed: int, device: torch.device = torch.device("cpu")) -> Iterator[None]:  # noqa: B008  it is a constant
    """Seed torch's random state, which all threads share, for this one alone; what it was is given back at the end."""
    with _RANDOM_STATE, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def keep_freed_memory() -> None:
    """Let glibc keep what is freed; by default it returns each large tensor's pages, which takes a fifth of a step."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30) or libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
