"""A stand-in for a phone's adbd, for the unmodified adb client: one class, whose shell is this machine's.

It speaks what the client needs to connect, push files and run commands (CNXN, AUTH, shell v2, sync SEND and STAT), on
loopback only. Paths on the "phone" are this machine's.
"""

import os
import queue
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_VERSION, _MOST = 0x01000001, 256 * 1024
_STDOUT, _STDERR, _EXIT = 1, 2, 3  # of shell v2
_TOKEN, _PUBLIC_KEY = 1, 3  # of AUTH


class Phone:
    """A phone that listens at 127.0.0.1:`port`; its shell starts in `folder`, and looks for programs there first."""

    def __init__(self, folder: Path, *, authorised: bool = True) -> None:
        self.authorised = authorised
        self.commands: list[str] = []
        self.on_command: Callable[[str], None] = lambda command: None  # is called when a command has been started
        self.hung = False  # takes everything, answers nothing
        self._folder = folder
        self._connections: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._listen)

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Go away at once, as adbd does when it is killed or the cable is pulled."""
        for connection in [self._listener, *self._connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        """Go away, and end what was started."""
        self.kill()
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=self._quietly, args=(work, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _quietly(self, work: Callable[..., None], *arguments: object) -> None:
        with suppress(OSError, EOFError):  # the connection is gone
            work(*arguments)

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        streams: dict[int, Stream] = {}
        try:
            self._read(connection, streams)
        finally:
            for stream in streams.values():
                stream.cut()

    def _read(self, connection: socket.socket, streams: "dict[int, Stream]") -> None:
        """Read messages: those of a stream go to the thread that serves it."""
        while True:
            command, first, _, payload = _receive(connection)
            if self.hung:
                continue
            if command == b"CNXN" and self.authorised:
                _send(connection, b"CNXN", _VERSION, _MOST, b"device::ro.product.name=stub;features=shell_v2,cmd")
            elif command == b"CNXN" or (command == b"AUTH" and first != _PUBLIC_KEY):
                _send(connection, b"AUTH", _TOKEN, 0, bytes(20))
            elif command == b"OPEN":
                stream = streams[first] = Stream(self, connection, first)
                service = payload.rstrip(b"\0").decode()
                stream.answer(b"OKAY")
                self._start(self._sync if service == "sync:" else self._shell, stream, service)
            elif command == b"WRTE" and first in streams:
                streams[first].arrived.put(payload)
                streams[first].answer(b"OKAY")
            elif command == b"OKAY" and first in streams:
                streams[first].taken.release()
            elif command == b"CLSE" and first in streams:
                streams.pop(first).arrived.put(b"")

    def _shell(self, stream: "Stream", service: str) -> None:
        """Run `shell,v2,...:COMMAND`."""
        command = service.partition(":")[2]
        self.commands.append(command)
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env={**os.environ, "PATH": f"{self._folder}:{os.environ['PATH']}"},
            start_new_session=True,
        )
        self._processes.append(process)
        with process:
            self.on_command(command)
            assert process.stdout is not None
            assert process.stderr is not None
            while data := os.read(process.stdout.fileno(), 4096):
                stream.write(struct.pack("<BI", _STDOUT, len(data)) + data)
            if data := process.stderr.read():
                stream.write(struct.pack("<BI", _STDERR, len(data)) + data)
        stream.write(struct.pack("<BIB", _EXIT, 1, process.returncode & 255))
        stream.answer(b"CLSE")

    def _sync(self, stream: "Stream", _: str) -> None:
        """Take files: SEND `path,mode`, DATA, ..., DONE; and say what STAT asks."""
        while True:
            request, size = struct.unpack("<4sI", stream.read(8))
            if request == b"QUIT":
                stream.answer(b"CLSE")
                return
            path, _, mode = stream.read(size).decode().partition(",")
            if request == b"STAT":
                found = Path(path).stat() if Path(path).exists() else None
                stream.write(
                    b"STAT" + struct.pack("<III", *((found.st_mode, found.st_size, 0) if found else (0, 0, 0)))
                )
                continue
            assert request == b"SEND", request
            data = b""
            while (part := struct.unpack("<4sI", stream.read(8)))[0] == b"DATA":
                data += stream.read(part[1])
            try:
                Path(path).write_bytes(data)
                Path(path).chmod(int(mode) & 0o777)
                stream.write(b"OKAY" + struct.pack("<I", 0))
            except OSError as error:
                said = str(error).encode()
                stream.write(b"FAIL" + struct.pack("<I", len(said)) + said)


class Stream:
    """One service's two ways; `id` is the client's, and serves as ours too."""

    def __init__(self, phone: Phone, connection: socket.socket, id: int) -> None:
        self._phone, self._connection, self._id = phone, connection, id
        self.arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.taken = threading.Semaphore(0)  # released when the client has taken a message
        self._left = b""
        self._cut = False

    def cut(self) -> None:
        """Wake who waits for the client, which is gone."""
        self._cut = True
        self.taken.release()
        self.arrived.put(b"")

    def answer(self, command: bytes, payload: bytes = b"") -> None:
        if not self._phone.hung:
            _send(self._connection, command, self._id, self._id, payload)

    def write(self, payload: bytes) -> None:
        self.answer(b"WRTE", payload)
        self.taken.acquire()
        if self._cut:
            raise EOFError

    def read(self, size: int) -> bytes:
        while len(self._left) < size:
            part = self.arrived.get()
            if not part:
                raise EOFError
            self._left += part
        taken, self._left = self._left[:size], self._left[size:]
        return taken


def _receive(connection: socket.socket) -> tuple[bytes, int, int, bytes]:
    command, first, second, size, _, _ = struct.unpack("<4s5I", _exactly(connection, 24))
    return command, first, second, _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _send(connection: socket.socket, command: bytes, first: int, second: int, payload: bytes = b"") -> None:
    magic = struct.unpack("<I", command)[0] ^ 0xFFFFFFFF
    head = struct.pack("<4s5I", command, first, second, len(payload), sum(payload) & 0xFFFFFFFF, magic)
    connection.sendall(head + payload)
