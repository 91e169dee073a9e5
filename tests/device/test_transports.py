"""What every transport must do; a transport's own class only says how one is opened."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.device.device import Device, Setting
from hwnas.device.transports import Transport, open_transport
from hwnas.errors import DeviceError, InputError, UnknownNameError

IS_ALIVE = """
import os, sys, time
for _ in range(500):  # at most 5 s, for connections that take a moment to close
    try:
        os.kill(int(sys.argv[1]), 0)
    except ProcessLookupError:
        break
    time.sleep(0.01)
else:
    print("alive")
"""
PID_THEN_LISTEN = "import os, sys; print(os.getpid()); sys.stdin.read()"


def device(transport: str, *, python: str = "") -> Device:
    return Device(name="here", transport=transport, python=python, settings=(Setting(runtime="onnx"),))


class TransportContract:
    """Takes the fixture `transport` of a subclass: an open transport to some device with a Python."""

    def test_a_file_that_was_put_is_read_there(self, transport: Transport, tmp_path: Path) -> None:
        source = tmp_path / "a b.txt"
        source.write_text("one\n\nzwölf ✓\n", encoding="utf-8")
        program = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
        assert list(transport.run(["-c", program, transport.put(source)])) == ["one", "", "zwölf ✓"]

    def test_files_of_one_name_do_not_collide(self, transport: Transport, tmp_path: Path) -> None:
        paths = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "m.txt").write_text(folder)
            paths.append(transport.put(tmp_path / folder / "m.txt"))
        program = "import sys; [print(open(path).read()) for path in sys.argv[1:]]"
        assert list(transport.run(["-c", program, *paths])) == ["a", "b"]

    def test_what_is_no_file_cannot_be_put(self, transport: Transport, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"must be a file; got .*absent"):
            transport.put(tmp_path / "absent")

    def test_a_line_comes_before_the_process_ends_and_closing_ends_it(self, transport: Transport) -> None:
        lines = transport.run(["-c", PID_THEN_LISTEN])
        pid = next(lines)
        lines.close()
        assert list(transport.run(["-c", IS_ALIVE, pid])) == []

    def test_an_exception_in_the_reader_ends_the_process(self, transport: Transport) -> None:
        lines = transport.run(["-c", PID_THEN_LISTEN])
        pid = next(lines)
        with pytest.raises(KeyboardInterrupt):
            lines.throw(KeyboardInterrupt())
        assert list(transport.run(["-c", IS_ALIVE, pid])) == []

    def test_standard_input_stays_open(self, transport: Transport) -> None:
        program = "import select; print(select.select([0], [], [], 0.1)[0])"
        assert list(transport.run(["-c", program])) == ["[]"]

    def test_a_failure_comes_after_the_lines_and_says_the_last_words(self, transport: Transport) -> None:
        lines = transport.run(["-c", "import sys; print('one'); sys.exit('it broke')"])
        assert next(lines) == "one"
        with pytest.raises(DeviceError, match="here must end with status 0; got status 1: it broke"):
            next(lines)

    def test_a_signal_is_a_failure(self, transport: Transport) -> None:
        with pytest.raises(DeviceError, match=r"SIGKILL|137"):
            list(transport.run(["-c", "import os; os.kill(os.getpid(), 9)"]))

    def test_chatter_on_standard_error_neither_blocks_nor_shows(
        self, transport: Transport, capfd: pytest.CaptureFixture[str]
    ) -> None:
        program = "import sys; sys.stderr.write('x' * 2_000_000); print('done')"
        assert list(transport.run(["-c", program])) == ["done"]
        assert capfd.readouterr() == ("", "")

    def test_nothing_starts_before_the_first_line_is_asked_for(self, transport: Transport) -> None:
        transport.run(["-c", "raise SystemExit('never run')"]).close()

    def test_it_may_be_closed_twice(self, transport: Transport) -> None:
        transport.close()
        transport.close()


class TestLocal(TransportContract):
    @pytest.fixture
    def transport(self) -> Iterator[Transport]:
        with open_transport(device("local")) as transport:
            yield transport

    def test_an_interpreter_that_is_not_there_is_named(self) -> None:
        with (
            open_transport(device("local", python="/no/python")) as transport,
            pytest.raises(DeviceError, match=r"got /no/python: No such file.* devices/here\.toml"),
        ):
            list(transport.run(["-c", ""]))

    def test_a_file_stays_where_it_is(self, transport: Transport, tmp_path: Path) -> None:
        (tmp_path / "m").touch()
        assert transport.put(tmp_path / "m") == str(tmp_path / "m")


def test_an_unknown_transport_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown transport 'pigeon'; known: .*local"):
        open_transport(device("pigeon"))
