"""What the transport ssh says when a device cannot be used: the rule, what was got, and the next command to type."""

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh

from hwnas.device.device import Device
from hwnas.support import expanded

TAIL = 2000  # characters of standard error in an error
NO_COMMAND = (126, 127)  # a shell's status for a command that cannot be started


class Words:
    """The words about one device."""

    def __init__(self, device: Device) -> None:
        self.name, self.address, self.port, self.folder = device.name, device.address, device.port, device.folder
        self.where = f"device {device.name} ({device.address}, port {device.port})"
        self.python = device.python or "python3"
        self.user, _, self.host = device.address.rpartition("@")
        self.known_hosts = expanded(device.known_hosts)
        self.key = expanded(device.key) if device.key else None

    def failed(self, status: int, said: str) -> str:
        """Return why the device's Python, or the keeper, has failed."""
        words = said.strip()[-TAIL:]
        if status in NO_COMMAND:
            return (
                f"`python` of device {self.name} must be an interpreter that can be started there; got "
                f"{self.python}: {words}. Set it in devices/{self.name}.toml"
            )
        return (
            f"{self.where} must do what the transport needs there, with Python 3.9 or newer; got status {status}: "
            f"{words}. Set `python` and `folder` in devices/{self.name}.toml"
        )

    def make_room(self, folder: str) -> str:
        """Return what to do about a full disk, that of a private folder."""
        where = self.folder or Path(folder).parent
        return (
            f"Look: {self.ssh('df', '-h', str(where))}; then remove something there, or set `folder` in "
            f"devices/{self.name}.toml to a folder on another disk"
        )

    def distrusted(self) -> str:
        """Return what to do about a host key that is not the one in the file, or is not in it."""
        port = None if self.port == 22 else self.port
        place = self.host if port is None else f"[{self.host}]:{port}"
        add = f"{self.keyscan()} >> {shlex.quote(str(self.known_hosts))}"
        compare = "and compare with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says on the device itself"
        known: tuple[Sequence[Any], ...] = ((),)
        if self.known_hosts.is_file():
            known = asyncssh.match_known_hosts(str(self.known_hosts), self.host, "", port)
        if not any(known):
            return f"the host key of {self.where} must be in {self.known_hosts}; there is none. Type: {add} ({compare})"
        remove = shlex.join(["ssh-keygen", "-R", place, "-f", str(self.known_hosts)])
        return (
            f"the host key of {self.where} must be the one in {self.known_hosts}; got another one: the device was "
            f"installed anew, or something else answers in its place. If it is the device, type: {remove}; {add} "
            f"({compare})"
        )

    def refused(self, error: Exception) -> str:
        """Return what to do where no key opens the device."""
        copy = ["ssh-copy-id", "-p", str(self.port)]
        copy += ["-i", str(self.key)] if self.key else []
        keys = self.key or "one of the agent's keys or of those in ~/.ssh"
        return (
            f"{self.where} must let {self.user or 'this user'} in with {keys}; {error}. "
            f"Type: {shlex.join([*copy, self.address])}"
        )

    def ssh(self, *command: str) -> str:
        """Return the command line that logs in, or does a command there."""
        options = ["-p", str(self.port), *(["-i", str(self.key)] if self.key else [])]
        options += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        return shlex.join(["ssh", *options, self.address, *command])

    def keyscan(self) -> str:
        """Return the command line that asks for the device's host keys."""
        return shlex.join(["ssh-keyscan", "-p", str(self.port), self.host])


def how(status: str) -> str:
    """Return in words how a process has ended."""
    if not status.removeprefix("-").isdecimal():
        return "an end from outside (was the device restarted, or out of memory?)"
    if not status.startswith("-"):
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-int(status)).name}"
    except ValueError:
        return f"signal {status[1:]}"
