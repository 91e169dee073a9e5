"""The transport ssh, with a real sshd on loopback whose connections are cut, hung and refused."""

import ast
import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tiny_models import take, write_onnx

import hwnas
from hwnas.device.device import Device, Setting
from hwnas.device.transports import Transport, _ssh_keeper, open_transport, ssh
from hwnas.errors import DeviceError, InputError
from hwnas.latency.measure import time_models
from hwnas.testing import TransportContract

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.ssh,
    pytest.mark.skipif(SSHD is None, reason="no sshd here: ./apt-install openssh-server"),
]
ONNX = Setting(runtime="onnx")
CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/user_key.pub
UsePAM no
StrictModes no
Subsystem sftp internal-sftp
# bash then takes itself for an inner shell and leaves out ~/.bashrc, whatever that does here
SetEnv SHLVL=2
"""
HALVES = """
import sys, time
for i in range(60):
    for half in ("line ", f"{i}\\n"):
        sys.stdout.write(half)
        sys.stdout.flush()
        time.sleep(0.01)
"""
DEAF = "import time; print('here'); time.sleep(120)"  # does not notice that standard input closes
CLIENT = """
import sys
from hwnas.device import Device
from hwnas.device.transports import ssh
ssh._PATIENCE_S, ssh._BEAT_S = float(sys.argv[2]), 0.3
with ssh.Transport(Device.model_validate_json(sys.argv[1])) as transport:
    for line in transport.run(["-c", sys.argv[3]]):
        print(line, flush=True)
"""
CRASHES_ON_B = """
import os, time
class Interpreter:
    def __init__(self, model_path, num_threads):
        if model_path.endswith("b.tflite"):
            os.abort()
    def allocate_tensors(self): pass
    def get_input_details(self): return []
    def invoke(self): time.sleep(1e-4)
"""


def make_key(path: Path, *, kind: str = "ed25519") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


class Server:
    """An sshd, what its clients need, and the folder `board` for its devices' files."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.folder = folder
        self.board = folder / "board"
        self.key = make_key(folder / "user_key")
        self.known_hosts = folder / "known_hosts"
        self.know(make_key(folder / "host_key"))
        (folder / "sshd_config").write_text(CONFIG.format(port=self.port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [str(SSHD), "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
        self.daemon = subprocess.Popen(command)
        eventually(self.answers)

    def know(self, key: Path) -> None:
        kind, text, *_ = key.with_suffix(".pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {text}\n")

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def device(self, **fields: Any) -> Device:
        mine = {
            "address": "127.0.0.1",
            "port": self.port,
            "known_hosts": self.known_hosts,
            "key": self.key,
            "folder": str(self.board),
            "python": sys.executable,
        }
        return Device(name="here", transport="ssh", settings=(ONNX,), **{**mine, **fields})

    def connections(self) -> list[int]:
        """Return the processes that serve a connection each."""
        return [pid for pid, parent in parents().items() if parent == self.daemon.pid]

    def logins(self) -> int:
        return (self.folder / "log").read_text().count("Accepted publickey")

    def signal(self, number: int, *, daemon: bool = False) -> None:
        for pid in [*self.connections(), *([self.daemon.pid] if daemon else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def cut(self) -> None:
        self.signal(signal.SIGKILL)

    def left(self) -> list[str]:
        """Return the command lines of the board's processes, and its files."""
        found = [str(path) for path in self.board.glob("*")]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{self.board}/hwnas-" in command or f"- open {self.board} " in command:
                    found.append(command)
        return found

    def end(self) -> None:
        self.signal(signal.SIGKILL, daemon=True)
        self.daemon.wait()


def parents() -> dict[int, int]:
    """Return each process's parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            if state != "Z":  # of which nobody has taken note yet
                found[int(path.parent.name)] = int(parent)
    return found


def eventually(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def words_of(act: Callable[[], Any], kind: type[Exception] = DeviceError) -> str:
    with pytest.raises(kind) as error:
        act()
    return str(error.value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.end()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what is waited for, on both sides."""
    monkeypatch.setattr(ssh, "_WAITS_S", (0.1, 0.2))
    monkeypatch.setattr(ssh, "_CONNECT_S", 1.0)
    monkeypatch.setattr(ssh, "_KEEPALIVE_S", 0.3)
    monkeypatch.setattr(ssh, "_FAREWELL_S", 1.0)
    monkeypatch.setattr(ssh, "_PATIENCE_S", 2.0)
    monkeypatch.setattr(ssh, "_BEAT_S", 0.3)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {name: write_onnx(tmp_path / f"{name}.onnx") for name in "abcdef"}


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ssh"))
    yield server
    assert server.left() == []
    server.end()


class TestSsh(TransportContract):
    @pytest.fixture
    def transport(self, one_server: Server) -> Iterator[Transport]:
        with open_transport(one_server.device()) as transport:
            yield transport

    def test_a_file_is_copied_once(self, transport: Transport, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("one")
        path = transport.put(tmp_path / "m")
        assert transport.put(tmp_path / "m") == path
        (tmp_path / "m").write_text("other")
        assert Path(transport.put(tmp_path / "m")).read_text() == "other"
        assert Path(path).read_text() == "one"

    def test_what_a_process_has_started_ends_with_it(self, transport: Transport) -> None:
        lines = transport.run(["-c", "import os, time; os.fork(); print(os.getpid()); time.sleep(120)"])
        pids = [next(lines), next(lines)]
        lines.close()
        eventually(lambda: not {int(pid) for pid in pids} & parents().keys())


def test_what_goes_to_the_device_is_for_its_old_python_too() -> None:
    ast.parse(Path(_ssh_keeper.__file__).read_text(), feature_version=(3, 9))


# Whole measurements.


def test_a_notebooks_running_event_loop_is_no_obstacle(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hwnas.latency.profiling._ROUNDS", 2)  # a single pass
    kept = ("address", "port", "known_hosts", "key", "folder")
    fields = [f"{name}={getattr(server.device(), name)}" for name in kept]
    hwnas.devices_add("here", transport="ssh", setting="onnx-fp32-1t", python=sys.executable, set=fields)

    async def cell() -> list[hwnas.Profiled]:
        return hwnas.profile("here", space="pnas", cells=(1,), filters=(4,), resolution=(8,), classes=3, networks=0)

    (profiled,) = asyncio.run(cell())
    assert profiled.entries > 50
    assert server.left() == []


def test_models_are_timed_and_nothing_is_left(server: Server, models: dict[str, Path]) -> None:
    seen: list[Any] = []
    two = {name: models[name] for name in ("a", "b")}
    timed = list(time_models(server.device(), ONNX, two, rounds=2, on_conditions=seen.append))
    assert sorted(one.name for one in timed) == ["a", "b"]
    assert len(seen) == 2
    assert server.left() == []


def test_models_are_timed_once_though_the_connection_is_cut_twice(server: Server, models: dict[str, Path]) -> None:
    arrived = []
    cuts = 0
    for one in time_models(server.device(), ONNX, models, rounds=10, group=1):
        arrived.append(one.name)
        if cuts < 2 and server.connections():  # else this line was on its way when the connection was cut
            server.cut()
            cuts += 1
    assert arrived == list(models)
    assert server.logins() == 3


def test_a_runner_that_crashes_on_a_model_leaves_what_has_arrived(server: Server, tmp_path: Path) -> None:
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").touch()
    (tmp_path / "ai_edge_litert" / "interpreter.py").write_text(CRASHES_ON_B)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    models = {name: tmp_path / f"{name}.tflite" for name in ("a", "b", "c")}
    for path in models.values():
        path.touch()
    device = server.device(python=str(python))
    arrived, said = take(time_models(device, Setting(runtime="tflite"), models, rounds=1, group=1))
    assert arrived == ["a"]
    assert "1 of 3 models had arrived" in said
    assert re.search(r"got signal SIGABRT: (.|\n)*loading b", said)
    assert server.left() == []


# Connections that fail.


def test_each_line_comes_once_though_the_connection_is_cut_within_lines(server: Server) -> None:
    read = []
    with open_transport(server.device()) as transport:
        for line in transport.run(["-c", HALVES]):
            read.append(line)
            if len(read) in (5, 30):
                server.cut()
    assert read == [f"line {i}" for i in range(60)]
    assert server.logins() == 3


def test_a_file_arrives_though_the_connection_was_cut(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("one")
    with open_transport(server.device()) as transport:
        server.cut()
        assert Path(transport.put(tmp_path / "m")).read_text() == "one"


def test_a_hung_connection_is_replaced_within_seconds(server: Server, models: dict[str, Path]) -> None:
    timed = time_models(server.device(), ONNX, models, rounds=10, group=1)
    arrived = [next(timed).name]
    server.signal(signal.SIGSTOP)
    started = time.monotonic()
    arrived += [one.name for one in timed]
    assert arrived == list(models)
    assert time.monotonic() - started < 10
    assert server.logins() == 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_server_that_is_gone_is_an_error_after_what_arrived(
    server: Server, models: dict[str, Path], number: signal.Signals
) -> None:
    timed = time_models(server.device(), ONNX, models, rounds=100, group=1)
    arrived = [next(timed).name]
    server.signal(number, daemon=True)
    more, said = take(timed)
    assert f"{len(arrived + more)} of 6 models had arrived" in said
    assert f"device here (127.0.0.1, port {server.port}) must stay reachable" in said
    assert "2 attempts over 0.3 s did not bring it back" in said
    assert f"Try: ssh -p {server.port} -i {server.key} -o UserKnownHostsFile={server.known_hosts} 127.0.0.1" in said
    eventually(lambda: server.left() == [])


@pytest.mark.usefixtures("quick")
def test_a_caller_may_take_its_time(server: Server) -> None:
    with open_transport(server.device()) as transport:
        lines = transport.run(["-c", HALVES])
        first = next(lines)
        time.sleep(2.5)
        assert [first, *lines] == [f"line {i}" for i in range(60)]


def test_a_client_that_was_away_for_too_long_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(ssh, "_BEAT_S", 60.0)
    with open_transport(server.device()) as transport:
        lines = transport.run(["-c", DEAF])
        next(lines)
        server.cut()
        eventually(lambda: server.left() == [])
        assert "must hear from here every 2 s; it did not" in words_of(lambda: next(lines))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_client_that_dies_leaves_nothing_behind(server: Server, number: signal.Signals) -> None:
    patience = "1" if number == signal.SIGKILL else "60"
    command = [sys.executable, "-c", CLIENT, server.device().model_dump_json(), patience, DEAF]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n"
        assert len(server.left()) >= 4
        client.send_signal(number)
        client.wait()
        eventually(lambda: server.left() == [])


# Devices that say what they should not.


GREETING = """
touch "{folder}/greeted"
echo Welcome to this board
printf "no end of line"
echo a warning >&2
"""


@pytest.fixture
def greeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Server]]:
    """Return a function that starts a server where bash reads a script at each login, as it reads ~/.bashrc."""
    if Path(pwd.getpwuid(os.getuid()).pw_shell).name != "bash":
        pytest.skip("the login's shell is not bash")
    script = tmp_path / "greeting.sh"
    monkeypatch.setattr(f"{__name__}.CONFIG", CONFIG.replace("SHLVL=2", f"SHLVL=2 BASH_ENV={script}"))
    servers: list[Server] = []

    def start(text: str) -> Server:
        script.write_text(text)
        servers.append(Server(tmp_path))
        return servers[0]

    yield start
    for one in servers:
        one.end()


def test_a_login_script_may_greet(greeting: Callable[[str], Server], tmp_path: Path, models: dict[str, Path]) -> None:
    server = greeting(GREETING.format(folder=tmp_path))
    arrived = []
    for one in time_models(server.device(), ONNX, models, rounds=5, group=1):
        arrived.append(one.name)
        if len(arrived) == 2:
            server.cut()
    assert (tmp_path / "greeted").exists()
    assert arrived == list(models)
    assert server.left() == []


def test_a_login_script_that_takes_the_place_of_all_else_is_named(greeting: Callable[[str], Server]) -> None:
    server = greeting("echo Closed for today; exit")
    said = words_of(lambda: open_transport(server.device()))
    assert "must run what it is given; got, without an error, 'Closed for today" in said


def test_a_login_that_never_stops_talking_is_an_error(
    greeting: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "WORDS_BYTES", 10_000)
    server = greeting("while echo 0123456789; do :; done")
    said = words_of(lambda: open_transport(server.device()))
    assert f"got more from device here (127.0.0.1, port {server.port})" in said


def test_one_that_floods_standard_error_is_an_error_in_time(
    greeting: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_COMMAND_S", 1.0)
    server = greeting("while echo 0123456789 >&2; do :; done")
    said = words_of(lambda: open_transport(server.device()))
    assert "must do a short command within 1 s" in said


def test_a_line_without_an_end_is_an_error_that_names_the_device(
    one_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "LINE_BYTES", 100_000)
    with open_transport(one_server.device()) as transport:
        said = words_of(lambda: list(transport.run(["-c", "print(200_000 * 'a')"])))
    assert f"got a longer one from device here (127.0.0.1, port {one_server.port})" in said


BOARD = Device(name="here", transport="ssh", address="board", settings=(ONNX,))


@pytest.mark.parametrize(
    "said", ["", "[]", "{", '{"status": 0, "words": "", "free": 1}', "9" * 5000, '{"status": "0"}', "[" * 100_000]
)
def test_an_end_that_says_nothing_is_an_error(said: str) -> None:
    words = words_of(lambda: ssh._Board(BOARD)._check_end(0, said))
    assert "device here (board, port 22) must say how a run has ended" in words


@pytest.mark.parametrize("said", ["", "\n", "relative\n", "/tmp/a\n/tmp/b\n", "/tmp/\x1b[2J\n", "/" + 2000 * "a"])
def test_a_folder_that_is_no_path_is_an_error(said: str) -> None:
    assert "must say where its private folder is" in words_of(lambda: ssh._Board(BOARD)._checked_folder(said))


# Devices that cannot be used; the errors' commands are typed as they stand.


def type_what_is_said(said: str, pattern: str) -> None:
    typed = re.search(pattern, said)
    assert typed, said
    subprocess.run(typed[1], shell=True, check=True, capture_output=True)


@pytest.mark.parametrize("there", [True, False])
def test_an_unknown_host_key_is_refused_until_it_is_added(server: Server, there: bool) -> None:
    server.known_hosts.unlink()
    if there:
        server.known_hosts.touch()
    said = words_of(lambda: open_transport(server.device()))
    assert f"must be in {server.known_hosts}; there is none" in said
    type_what_is_said(said, r"Type: (ssh-keyscan .*?) \(")
    open_transport(server.device()).close()


def test_a_host_key_of_another_kind_is_refused(server: Server, tmp_path: Path) -> None:
    server.know(make_key(tmp_path / "other", kind="ecdsa"))
    said = words_of(lambda: open_transport(server.device()))
    assert "must be reachable" in said or "a kind of host key" in said  # as the server closes, or says why


def test_another_host_key_is_refused_until_it_is_replaced(server: Server, tmp_path: Path) -> None:
    server.know(make_key(tmp_path / "other"))
    said = words_of(lambda: open_transport(server.device()))
    assert f"must be the one in {server.known_hosts}; got another one" in said
    type_what_is_said(said, r"type: (ssh-keygen -R .*? >> .*?) \(")
    open_transport(server.device()).close()


def test_a_host_key_that_changes_between_connections_is_refused(server: Server, tmp_path: Path) -> None:
    with open_transport(server.device()) as transport:
        server.know(make_key(tmp_path / "other"))
        server.cut()
        assert "got another one" in words_of(lambda: list(transport.run(["-c", ""])))


def test_a_wrong_user_key_is_refused(server: Server, tmp_path: Path) -> None:
    device = server.device(key=make_key(tmp_path / "stranger"))
    said = words_of(lambda: open_transport(device))
    assert f"must let this user in with {tmp_path}/stranger" in said
    assert f"Type: ssh-copy-id -p {server.port} -i {tmp_path}/stranger 127.0.0.1" in said


def test_where_nothing_listens_the_error_comes_at_once(server: Server) -> None:
    with socket.socket() as taken:  # of nobody who listens
        taken.bind(("127.0.0.1", 0))
        said = words_of(lambda: open_transport(server.device(port=taken.getsockname()[1])))
    assert "must be reachable" in said
    assert "Connect call failed" in said


def test_an_address_is_needed(server: Server) -> None:
    said = words_of(lambda: open_transport(server.device(address="")), InputError)
    assert "must have an `address`; add it to devices/here.toml" in said


def test_a_key_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    said = words_of(lambda: open_transport(server.device(key=tmp_path / "absent")), InputError)
    assert f"must be a file; got {tmp_path}/absent. To make one: ssh-keygen" in said


def test_a_key_with_a_passphrase_belongs_into_the_agent(server: Server) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(server.key)], check=True, capture_output=True)
    said = words_of(lambda: open_transport(server.device()), InputError)
    assert f"type: ssh-add {server.key}" in said


def test_an_interpreter_that_is_not_there_is_named(server: Server) -> None:
    said = words_of(lambda: open_transport(server.device(python="/no/python")))
    assert "must be an interpreter that can be started there; got /no/python: " in said
    assert "Set it in devices/here.toml" in said


def test_a_command_that_ends_before_it_is_given_its_input_says_why_it_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = asyncssh.SSHClientConnection.create_session

    async def begin_late(*arguments: Any, **options: Any) -> Any:
        channel, session = await begin(*arguments, **options)
        if isinstance(session, asyncssh.SSHClientProcess):
            await session.wait_closed()
        return channel, session

    monkeypatch.setattr(asyncssh.SSHClientConnection, "create_session", begin_late)
    said = words_of(lambda: open_transport(server.device(python="/no/python")))
    assert "must be an interpreter that can be started there; got /no/python: " in said


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = words_of(lambda: open_transport(server.device(folder=str(tmp_path / "file" / "f"))))
    assert "NotADirectoryError" in said
    assert "Set `python` and `folder` in devices/here.toml" in said


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "hwnas", str(disk)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here, which takes root: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_file_that_does_not_fit_is_an_error_and_nothing_of_it_stays(
    server: Server, small_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(2_000_000))
    (tmp_path / "small").write_bytes(bytes(200_000))
    with open_transport(server.device(folder=str(small_disk))) as transport:
        said = words_of(lambda: transport.put(tmp_path / "large"))
        assert not list(small_disk.glob("*/*large"))
        assert Path(transport.put(tmp_path / "small")).stat().st_size == 200_000
    assert f"device here (127.0.0.1, port {server.port}) must have room for {tmp_path}/large (2000000 bytes)" in said
    assert "the disk is full" in said
    assert f"df -h {small_disk}" in said
    assert "or set `folder` in devices/here.toml" in said
    assert list(small_disk.glob("*")) == []


def test_a_run_that_fills_the_disk_is_an_error_after_its_lines(server: Server, small_disk: Path) -> None:
    with open_transport(server.device(folder=str(small_disk))) as transport:
        lines = transport.run(["-c", "for i in range(100_000): print(f'{i:099}')"])
        read = [next(lines)]
        said = words_of(lambda: read.extend(lines))
    assert [int(line) for line in read[:-1]] == list(range(len(read) - 1))
    assert len(read) > 5000
    assert "must end with status 0; got status 1" in said
    assert "is full: Look: ssh" in said
    assert list(small_disk.glob("*")) == []
