"""What every transport must keep to."""

from pathlib import Path

import numpy as np
import pytest

from hwnas import formats
from hwnas.device import Job, Setting
from hwnas.device.transports import Transport
from hwnas.errors import DeviceError, InputError
from hwnas.latency import Conditions
from hwnas.latency.lines import TimesModels
from hwnas.latency.measure import write_models
from hwnas.network import Builder

_IS_ALIVE = """
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
_PID_THEN_LISTEN = "import os, sys; print(os.getpid()); sys.stdin.read()"


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
        lines = transport.run(["-c", _PID_THEN_LISTEN])
        pid = next(lines)
        lines.close()
        assert list(transport.run(["-c", _IS_ALIVE, pid])) == []

    def test_an_exception_in_the_reader_ends_the_process(self, transport: Transport) -> None:
        lines = transport.run(["-c", _PID_THEN_LISTEN])
        pid = next(lines)
        with pytest.raises(KeyboardInterrupt):
            lines.throw(KeyboardInterrupt())
        assert list(transport.run(["-c", _IS_ALIVE, pid])) == []

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


class TimingContract:
    """Takes the fixture `transport` of a subclass: an open transport to a device without Python; it times TFLite."""

    @pytest.fixture
    def job(self, transport: Transport, tmp_path: Path) -> Job:
        """Two models of TFLite, of which the second has more to do, and a canary."""
        graphs = {}
        for name, filters in {"small": 2, "large": 64}.items():
            b = Builder((4, 16, 16))
            value = b.window("conv", 0, name="convolution", filters=filters, kernel=(3, 3))
            graphs[name] = formats.get("tflite").lower(b.finish(b.relu(value)))
        paths = {name: transport.put(path) for name, path in write_models(graphs, _TFLITE, tmp_path).items()}
        models = [{"name": name, "path": path} for name, path in paths.items()]
        return Job(runtime="tflite", models=models, canary=paths["small"], rounds=3)

    def test_every_model_arrives_between_the_conditions_and_the_end(self, transport: Transport, job: Job) -> None:
        assert isinstance(transport, TimesModels)
        first, *lines, last = (event for event in transport.time(job) if "waiting" not in event)
        assert Conditions.of_runner(first["conditions"]).fingerprint.keys() >= {"cpu", "runtime", "threads"}
        assert Conditions.of_runner(last["conditions"]).runtime == "tflite"
        assert last["end"] == len(lines) == 2
        assert {line["name"] for line in lines} == {"small", "large"}
        for line in lines:
            assert len(line["rounds_ms"]) == len(line["canary_ms"]) == 3
            assert min(min(samples) for samples in line["rounds_ms"]) > 0

    def test_what_has_more_to_do_takes_longer(self, transport: Transport, job: Job) -> None:
        assert isinstance(transport, TimesModels)
        ms = {event["name"]: np.median(event["rounds_ms"]) for event in transport.time(job) if "name" in event}
        assert ms["large"] > ms["small"]

    def test_another_runtime_is_an_error_of_the_whole_job(self, transport: Transport) -> None:
        assert isinstance(transport, TimesModels)
        (event,) = transport.time(Job(runtime="abacus", models=[]))
        assert "abacus" in event["error"]

    def test_python_is_refused(self, transport: Transport) -> None:
        with pytest.raises(DeviceError, match="Python must not be asked for"):
            list(transport.run(["-c", ""]))

    def test_what_is_no_file_cannot_be_put(self, transport: Transport, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"must be a file; got .*absent"):
            transport.put(tmp_path / "absent")

    def test_it_may_be_closed_twice(self, transport: Transport) -> None:
        transport.close()
        transport.close()


_TFLITE = Setting(runtime="tflite")
