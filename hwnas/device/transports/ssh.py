"""A board that is reached by ssh; what runs there outlives cut connections, and ends if the client never comes back.

A private folder on the device holds what is put and what runs write. `_ssh_keeper.py`, which goes there first, says how
runs are kept and how the folder is guarded. The connection lives in a thread of its own, so that signs of life are sent
whatever the caller does.
"""

import asyncio
import re
import shlex
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncssh
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.device.device import Device
from hwnas.device.transports._bounds import LINE_BYTES, WORDS_BYTES, too_long, too_much
from hwnas.device.transports._ssh_keeper import BEGIN
from hwnas.device.transports._ssh_words import TAIL, Words, how
from hwnas.errors import DeviceError, InputError

_CONNECT_S = 5.0  # to connect and log in
_KEEPALIVE_S = 1.0  # between questions to a silent server
_KEEPALIVES = 3  # without an answer, and the connection is lost
_WAITS_S = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)  # before each attempt to get a lost connection back
_BEAT_S = 5.0  # between signs of life
_PATIENCE_S = 60.0  # of the device without a sign of life; more than all those attempts take
_COMMAND_S = 30.0  # for a short command on the device
_FAREWELL_S = 5.0  # to end and remove what is there
_ROOM = 64 * 1024  # bytes; a disk with less than that to spare is full
_CHUNK = 64 * 1024  # bytes read at once
_GREETING = 1000  # lines of a login script
_KEEPER = Path(__file__).with_name("_ssh_keeper.py")

_T = TypeVar("_T")


def starts(device: Device) -> str:
    """Return the host that a device's file has logged in to, and who vouches for it."""
    return f"ssh {device.address}, port {device.port}, with the host keys in {device.known_hosts}"


class Transport:
    """See hwnas.device.transports.Transport."""

    def __init__(self, device: Device) -> None:
        self._board = _Board(device)
        self._loop = _Loop()
        self._paths: dict[tuple[str, int, int], str] = {}
        self._runs = 0
        try:
            self._loop.do(self._board.open())
        except BaseException:
            self.close()
            raise

    def put(self, path: Path) -> str:
        """Copy the file, unless it has been copied as it is now."""
        if not path.is_file():
            raise InputError(f"what is brought to device {self._board.device.name} must be a file; got {path}")
        stat = path.stat()
        key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
        if key not in self._paths:
            self._paths[key] = self._loop.do(self._board.put(path, f"{len(self._paths):04}-{path.name[-60:]}"))
        return self._paths[key]

    def run(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """Run a process that needs no connection; read each of its lines once, over as many connections as it takes."""
        run = _Run(f"run-{self._runs}", arguments)
        self._runs += 1
        try:
            while (line := self._loop.do(self._board.read_line(run))) is not None:
                yield line
        finally:
            if not self._loop.closed:
                self._loop.do(self._board.stop(run))

    def close(self) -> None:
        """End what runs, remove the private folder and disconnect; without a connection, the guard does it in time."""
        if self._loop.closed:
            return
        try:
            self._loop.do(self._board.close())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.closed = False
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what the work returns; an exception here, as by Ctrl-C, cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop.result())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End all work."""
        self.closed = True
        self._loop.result().call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._loop.set_result(asyncio.get_running_loop())
        await self._end.wait()


class _LostError(Exception):
    """There is no connection; there may be one later."""


_LOSSES = (
    _LostError,
    OSError,  # of the socket
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
)


@dataclass(frozen=True, slots=True)
class _Link:
    """A connection, and a file transfer session in it."""

    connection: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient


class _Ending(BaseModel):
    """How a run has ended, as the keeper says it."""

    model_config = ConfigDict(frozen=True, strict=True)

    status: str = Field(max_length=20)
    words: str
    free: int


@dataclass(slots=True)
class _Run:
    """A run on the device, how many of its lines have been read, and by what."""

    name: str
    arguments: Sequence[str]
    over: bool = False
    lines: int = 0
    link: _Link | None = None
    process: asyncssh.SSHClientProcess[bytes] | None = None


class _Board:
    """The device, as seen from within the loop."""

    def __init__(self, device: Device) -> None:
        if not device.address:
            raise InputError(
                f"a device with transport ssh must have an `address`; add it to devices/{device.name}.toml"
            )
        self.device = device
        self._words = Words(device)
        self._link: _Link | None = None
        self._folder = self._keeper = ""  # there
        self._beats = 0
        self._beating: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and make a private folder with the keeper in it."""
        try:
            self._link = await self._connect()
            command = ["-", "open", self.device.folder, str(_PATIENCE_S)]
            self._folder = self._checked_folder(await self._python(self._link, command, _KEEPER.read_bytes()))
        except (_LostError, asyncssh.Error, OSError) as error:
            raise DeviceError(f"{self._words.where} must be reachable; {error}. Try: {self._words.ssh()}") from None
        self._beating = asyncio.create_task(self._show_life())
        self._keeper = await self.put(_KEEPER, "keeper.py")

    def _checked_folder(self, said: str) -> str:
        """Return the private folder that the keeper has made. Raises DeviceError for what is no path."""
        folder = said.removesuffix("\n")
        if not re.fullmatch(r"/[^\x00-\x1f\x7f]{1,1000}", folder):
            raise DeviceError(f"{self._words.where} must say where its private folder is; got {said[:TAIL]!r}")
        return folder

    async def put(self, path: Path, name: str) -> str:
        """Copy a file; nothing of it stays where that fails."""
        there = f"{self._folder}/{name}"
        try:
            path.open("rb").close()
        except OSError as error:
            raise InputError(f"what is brought to {self._words.where} must be readable; {error}") from None
        try:
            await self._linked(lambda link: link.sftp.put(str(path), there))
        except asyncssh.SFTPError as error:
            raise DeviceError(await self._no_room(path, there, error)) from None
        return there

    async def read_line(self, run: _Run) -> str | None:
        """Return a run's next line, of a run that starts with the first one; None when it has ended well."""
        line = await self._linked(lambda link: self._next(link, run))
        run.lines += 1
        return line

    async def stop(self, run: _Run) -> None:
        """End a run that has not ended, if there is a connection."""
        if not run.over:
            await self._farewell("stop", f"{self._folder}/{run.name}")

    async def close(self) -> None:
        """Remove the private folder, if there is a connection, and disconnect."""
        if self._beating:
            self._beating.cancel()
        if self._folder:
            await self._farewell("close", self._folder)
        await self._drop()

    # Connections.

    async def _linked(self, act: Callable[[_Link], Awaitable[_T]]) -> _T:
        """Do something over the connection; if that is lost, get another one and do it again."""
        for wait_s in (*_WAITS_S, None):
            try:
                return await act(self._link or await self._reconnect())
            except _LOSSES as error:
                lost = str(error)
            await self._drop()
            if wait_s is not None:
                await asyncio.sleep(wait_s)
        raise DeviceError(
            f"{self._words.where} must stay reachable; the connection was lost, and {len(_WAITS_S)} attempts over "
            f"{sum(_WAITS_S):.3g} s did not bring it back: {lost}. What still runs there ends by itself "
            f"{_PATIENCE_S:.3g} s after that. Try: {self._words.ssh()}"
        )

    async def _reconnect(self) -> _Link:
        """Connect again. Raises DeviceError where the device has given up."""
        self._link = link = await self._connect()
        try:
            await self._beat(link)
        except asyncssh.SFTPNoSuchFile:
            raise DeviceError(
                f"{self._words.where} must hear from here every {_PATIENCE_S:.3g} s; it did not (or was "
                "restarted), and has removed the run and its files. Type the same command again"
            ) from None
        return link

    async def _connect(self) -> _Link:
        """Connect and log in. Raises _LostError for what may be better later."""
        try:
            connection = await asyncssh.connect(self._words.host, self.device.port, **self._options())
        except asyncssh.HostKeyNotVerifiable:
            raise DeviceError(self._words.distrusted()) from None
        except asyncssh.KeyExchangeFailed as error:
            raise DeviceError(
                f"{self._words.where} must agree on algorithms, and on a kind of host key in "
                f"{self._words.known_hosts}; {error}. See what it offers: {self._words.keyscan()}"
            ) from None
        except asyncssh.PermissionDenied as error:
            raise DeviceError(self._words.refused(error)) from None
        except ValueError as error:
            raise InputError(
                f"`key` and `known_hosts` of {self._words.where} must be files that can be used without a passphrase; "
                f"{error}. For a key with one, leave `key` out and type: ssh-add {self._words.key or ''}"
            ) from None
        except (asyncssh.Error, OSError) as error:
            raise _LostError(str(error) or f"no answer within {_CONNECT_S:.3g} s") from None
        try:
            return _Link(connection, await connection.start_sftp_client())
        except (asyncssh.Error, OSError) as error:
            connection.abort()
            raise _LostError(f"no file transfer: {error}") from None

    def _options(self) -> dict[str, Any]:
        """Return the options of a connection; the host key is always checked."""
        if self._words.key and not self._words.key.is_file():
            raise InputError(
                f"`key` of device {self.device.name} must be a file; got {self._words.key}. "
                f"To make one: ssh-keygen -t ed25519 -f {self._words.key}"
            )
        options: dict[str, Any] = {
            "config": None,
            "known_hosts": str(self._words.known_hosts) if self._words.known_hosts.is_file() else b"",
            "preferred_auth": "publickey",
            "connect_timeout": _CONNECT_S,
            "keepalive_interval": _KEEPALIVE_S,
            "keepalive_count_max": _KEEPALIVES,
        }
        if self._words.user:
            options["username"] = self._words.user
        if self._words.key:
            options |= {"client_keys": [str(self._words.key)], "agent_path": None}
        return options

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link:
            link.connection.abort()
            await link.connection.wait_closed()

    async def _show_life(self) -> None:
        """Tell the guard, again and again, that somebody is here."""
        while True:
            await asyncio.sleep(_BEAT_S)
            if self._link:
                with suppress(asyncssh.Error, OSError):
                    await self._beat(self._link)

    async def _beat(self, link: _Link) -> None:
        """Change the time of the file that the guard looks at."""
        self._beats += 1
        await link.sftp.utime(f"{self._folder}/alive", (self._beats, self._beats))

    # What the keeper is asked for.

    def _command(self, *arguments: str) -> str:
        """Return a command line of the device's Python, which starts in half the time without its packages."""
        return shlex.join([self._words.python, "-I", "-S", *arguments])

    async def _python(self, link: _Link, arguments: Sequence[str], given: bytes = b"") -> str:
        """Return what the keeper writes. Raises DeviceError where its status is not 0, and where it says too much."""
        command = self._command(*arguments)
        try:
            async with asyncio.timeout(_COMMAND_S):
                process = await link.connection.create_process(command, encoding=None)
                with suppress(BrokenPipeError):  # it may have ended without reading; its status says why
                    process.stdin.write(given)
                    process.stdin.write_eof()
                out, err = await self._read(process.stdout), await self._read(process.stderr)
                await process.wait_closed()
        except TimeoutError:
            raise DeviceError(
                f"{self._words.where} must do a short command within {_COMMAND_S:.3g} s; it did not. "
                f"Try: {self._words.ssh()}"
            ) from None
        finally:
            process.close()
        if process.exit_status is None:
            raise _LostError("Connection lost")
        if process.exit_status != 0:
            raise DeviceError(self._words.failed(process.exit_status, err))
        _, begin, written = out.partition(f"{BEGIN}\n")  # what comes before is a login script's
        if not begin:
            raise DeviceError(f"{self._words.where} must run what it is given; got, without an error, {out[:TAIL]!r}")
        return written

    async def _read(self, stream: asyncssh.SSHReader[bytes]) -> str:
        """Return all that comes; a text, whatever its bytes. Raises DeviceError for too much."""
        said = b""
        while chunk := await stream.read(_CHUNK):
            said += chunk
            if len(said) > WORDS_BYTES:
                raise too_much(self._words.where)
        return said.decode(errors="replace")

    async def _farewell(self, role: str, where: str) -> None:
        """Have the keeper end something, if that is possible at once."""
        if self._link is None:
            return
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._python(self._link, [self._keeper, role, where])
        except (asyncssh.Error, OSError, _LostError, DeviceError):
            await self._drop()

    async def _next(self, link: _Link, run: _Run) -> str | None:
        """Read the next line, from where another connection has left off."""
        if run.process is None or run.link is not link:
            words = [self._keeper, "run", f"{self._folder}/{run.name}", str(run.lines), *run.arguments]
            run.process = await link.connection.create_process(self._command(*words), encoding=None)
            run.link = link
            await self._skip_greeting(run.process)
        process = run.process
        line = await self._line(process)
        if line.endswith(b"\n"):
            return line[:-1].decode(errors="replace")
        await process.wait_closed()
        if process.exit_status is None:
            raise _LostError("Connection lost")
        if line:
            return line.decode(errors="replace")
        run.over = True
        self._check_end(process.exit_status, await self._read(process.stderr))
        return None

    async def _skip_greeting(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        """Read what a login script writes, up to where the keeper begins, or to the end of all."""
        for _ in range(_GREETING):
            line = await self._line(process)
            if line.endswith(f"{BEGIN}\n".encode()) or not line.endswith(b"\n"):
                return
        raise DeviceError(
            f"a login script must write fewer than {_GREETING} lines; got more from {self._words.where}. See what it "
            f"writes: {self._words.ssh('true')}"
        )

    async def _line(self, process: asyncssh.SSHClientProcess[bytes]) -> bytes:
        """Return the next line, or the last one without its end. Raises DeviceError for one that is too long."""
        line = b""
        while not line.endswith(b"\n") and not process.stdout.at_eof():
            part = await process.stdout.readline()
            line += part
            if len(line) > LINE_BYTES:
                raise too_long(self._words.where)
            if not part and not process.stdout.at_eof():  # there is no room for it
                raise DeviceError(f"a run must leave standard error alone; got too much there from {self._words.where}")
        return line

    def _check_end(self, code: int, said: str) -> None:
        """Raise DeviceError for a run that has not ended well."""
        if code != 0:
            raise DeviceError(self._words.failed(code, said))
        try:
            ending = _Ending.model_validate_json(said.rstrip("\n").rpartition("\n")[2])
        except ValidationError:
            raise DeviceError(
                f"{self._words.where} must say how a run has ended; got {said[-TAIL:]!r}. Look: {self._words.ssh()}"
            ) from None
        if (status := ending.status) == "0":
            return
        words = ending.words.strip()[-TAIL:]
        full = (
            f"\nThe disk of {self._folder} is full: {self._words.make_room(self._folder)}"
            if ending.free < _ROOM
            else ""
        )
        raise DeviceError(
            f"a run on device {self.device.name} must end with status 0; got {how(status)}: "
            f"{words or 'nothing on standard error'}{full}\nTo look at the device: {self._words.ssh()}"
        )

    async def _no_room(self, path: Path, there: str, error: asyncssh.SFTPError) -> str:
        """Remove what has been copied of a file, and return why it cannot be copied."""
        size = path.stat().st_size
        free = None
        with suppress(asyncssh.Error, OSError):
            if self._link:
                await self._link.sftp.remove(there)
                disk = await self._link.sftp.statvfs(self._folder)
                free = disk.bavail * disk.frsize
        full = free is not None and free < size + _ROOM
        why = f"the disk is full: {free} bytes are free" if full else str(error)
        return (
            f"{self._words.where} must have room for {path} ({size} bytes) in {self._folder}; {why}. "
            f"{self._words.make_room(self._folder)}"
        )
