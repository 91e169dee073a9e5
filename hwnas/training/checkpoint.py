"""A training's checkpoint: one safetensors file, whose header also carries the state as JSON and a checksum of both.

One file, renamed once: tensors and JSON belong together whenever the process is killed.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hwnas.errors import InputError, TrainingError, cut, short
from hwnas.support import check_file, check_nesting, parse_json, write_atomically

_VERSION = 2
_NETWORK = "network."  # a prefix of tensors' names; a training may have others
_NUMBER = re.compile(r"\(os error (\d+)\)")
_OPTIMIZER = {"momentum_buffer": "momentum", "exp_avg": "mean", "exp_avg_sq": "square", "step": "steps"}
"""What SGD and Adam know of each parameter, and what its tensors are called in a file."""


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; `state` are JSON values."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"version": _VERSION, **state}, allow_nan=False)
    metadata = {"state": text, "crc32": str(checksum(plain, text))}
    write_tensors(path, plain, metadata=metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors atomically; raises OSError where the disk is full, as whoever writes other files."""

    def write(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:
            raise _system_error(error) from None

    write_atomically(path, write)


def _system_error(error: SafetensorError) -> OSError:
    """Return the system's error of which safetensors tells only in words: `... (os error 28)`."""
    number = _NUMBER.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the state of a checkpoint.

    Raises TrainingError where it is broken, or of another version of hwnas.
    """
    try:
        check_file(path, what="a checkpoint")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        text = metadata["state"]
        if int(metadata["crc32"]) != checksum(tensors, text):
            raise broken(path, "its checksum does not fit")
        state: dict[str, Any] = parse_json(text)
        check_nesting(state)
        json.dumps(state, allow_nan=False)  # a number that is none is a ValueError
    except (SafetensorError, InputError, OSError, KeyError, ValueError, RecursionError) as error:
        raise broken(path, repr(error)) from None
    if not isinstance(state, dict):
        raise broken(path, "it has no state")
    if (version := state.get("version")) != _VERSION:
        raise TrainingError(
            f"a checkpoint must be of version {_VERSION}; {path} is of version {short(version)}; go on with the "
            "version of hwnas that wrote it, or delete it to train anew"
        )
    return tensors, state


def tensors_of(network: nn.Module, *optimizers: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return a network's parameters and buffers, and what its optimizers know of each parameter, by name."""
    tensors = tensors_of_network(network)
    for optimizer, (name, parameter) in product(optimizers, list(network.named_parameters())):
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{_OPTIMIZER[key]}.{name}"] = value
    return tensors


def tensors_of_network(network: nn.Module, *, prefix: str = _NETWORK) -> dict[str, Tensor]:
    """Return a network's parameters and buffers, by name."""
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


def restore(network: nn.Module, tensors: Mapping[str, Tensor], *optimizers: torch.optim.Optimizer) -> None:
    """Put `tensors_of` back, on the network's device and in its memory format."""
    restore_network(network, tensors)
    restore_optimizers(network, tensors, *optimizers)


def restore_network(network: nn.Module, tensors: Mapping[str, Tensor], *, prefix: str = _NETWORK) -> None:
    """Put what `tensors_of_network` has of a network back."""
    saved = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    network.load_state_dict(saved)


def restore_optimizers(network: nn.Module, tensors: Mapping[str, Tensor], *optimizers: torch.optim.Optimizer) -> None:
    """Put what `tensors_of` has of optimizers back."""
    for optimizer, (name, parameter) in product(optimizers, list(network.named_parameters())):
        is_its = any(parameter is one for group in optimizer.param_groups for one in group["params"])
        for key, called in _OPTIMIZER.items() if is_its else ():
            if (value := tensors.get(f"{called}.{name}")) is not None:
                is_like = value.shape == parameter.shape  # Adam's count of steps is one number, on the CPU
                like = parameter.detach() if is_like else value
                optimizer.state[parameter][key] = torch.empty_like(like).copy_(value)


def settings_in(path: Path) -> Any:
    """Return the settings of the training that a checkpoint is of, as JSON values; None where it is broken."""
    return identity_in(path).get("settings")


def identity_in(path: Path) -> dict[str, Any]:
    """Return what a checkpoint's training must be to go on, as JSON values; nothing where it is broken."""
    try:
        _, state = load(path)
    except TrainingError:
        return {}
    training = state.get("training")
    return training if isinstance(training, dict) else {}


def check_same(path: Path, saved: Any, wanted: Any, *, field: str = "") -> None:
    """Raise TrainingError that names the first field in which a checkpoint differs from what is to be trained now."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys((*wanted, *saved)):
            inner = f"{field}.{name}" if field else name
            check_same(path, saved.get(name, "nothing"), wanted.get(name, "nothing"), field=inner)
    elif saved != wanted:
        before, now = cut(str(saved)), cut(str(wanted))
        raise TrainingError(
            f"a training that is taken up again must be the same; {path} was begun with {field} = {before}, and now "
            f"it is {now}; go back to {before}, or delete {path} to train anew"
        )


def broken(path: Path, why: str) -> TrainingError:
    """Return the error for a checkpoint by which nothing can go on."""
    return TrainingError(f"{path} must be a whole checkpoint; it is broken ({cut(why)}); delete it to train anew")


def checksum(tensors: Mapping[str, Tensor], text: str = "") -> int:
    """Return a checksum of tensors (on the CPU), of their names and of a text."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        crc = zlib.crc32(content, zlib.crc32(name.encode(), crc))
    return crc
