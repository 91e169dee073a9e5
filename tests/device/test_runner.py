"""The runner: what it times, in which order, when it is content, and that it never outlives its client."""

import ast
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable
from tiny_models import WRITERS, write_onnx, write_tflite

from hwnas.device import runner
from hwnas.latency.measurement import Measurement
from hwnas.latency.said import read_line

RUNNER = Path(runner.__file__)
CALLS = 5  # of a model of 1 ms in a turn: 2 ms of warm-up, and 3 timed
LONG = 10**7  # rounds: hours
ENDED_BY_WATCH = runner.ORPHANED

rounds_of_samples = st.lists(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=6), min_size=1, max_size=8)


class Bench:
    """A clock that stands still except in the calls of pretended models, which it records."""

    def __init__(self) -> None:
        self.now = 0
        self.called: list[str] = []
        self.slept_s: list[float] = []
        self.duration_ms: dict[str, Iterator[float] | float] = {}

    def clock(self) -> int:
        return self.now

    def load(self, path: str) -> runner.Opened:
        return runner.Opened(self.call(path))

    def call(self, path: str) -> Callable[[], None]:
        duration = self.duration_ms.get(path, 1.0)

        def call() -> None:
            self.called.append(path)
            self.now += round(1e6 * (duration if isinstance(duration, float) else next(duration)))

        return call

    def run(self, names: list[str], **options: Any) -> list[runner.Event]:
        models = [{"name": name, "path": name} for name in names]
        job = runner.Job("fake", models, **options)
        return as_read(runner.time_models(job, self.load, self.patience(job)))

    def patience(self, job: runner.Job, throttling: Callable[[], runner.Event] = dict) -> runner.Patience:
        return runner.Patience(job, clock=self.clock, sleep=self.sleep, throttling=throttling)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now += round(1e9 * seconds)

    @property
    def turns(self) -> list[str]:
        """The models in the order of their turns, without the first call of each."""
        calls = self.called
        return [name for before, name in zip([None, *calls], calls, strict=False) if name != before]


def as_read(events: Iterable[runner.Event]) -> list[runner.Event]:
    """Return the runner's lines, each of which hwnas must be able to read."""
    lines = list(events)
    for line in lines:
        read_line(json.dumps(line), where="here")
    return lines


def per_round(*durations_ms: float, calls: int = CALLS) -> Iterator[float]:
    """Yield the durations of a model's calls: one for all calls of a round, the last one for ever."""
    yield durations_ms[0]  # when it is loaded
    for duration in durations_ms:
        for _ in range(calls):
            yield duration
    while True:
        yield durations_ms[-1]


def spawn(job: Path, *options: str, path: Path | None = None, **pipes: Any) -> subprocess.Popen[str]:
    """Start the runner in a process of its own; `path` is searched for modules before all others."""
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    command = [sys.executable, str(RUNNER), str(job), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **pipes)


def finish(job: Path, *, path: Path | None = None) -> tuple[list[runner.Event], int]:
    """Return the runner's lines and its exit status."""
    with spawn(job, path=path, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        return [json.loads(line) for line in process.stdout], process.wait(30)


def write_job(folder: Path, runtime: str, *models: Path, **options: Any) -> Path:
    job = {"runtime": runtime, "models": [{"name": model.name, "path": str(model)} for model in models], **options}
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def write_modules(folder: Path, **sources: str) -> Path:
    """Write packages, each with a module `interpreter` of that source."""
    for package, source in sources.items():
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
        (folder / package / "interpreter.py").write_text(source)
    return folder


@given(rounds_of_samples)
def test_its_spread_is_the_measurements_spread(rounds_ms: list[list[float]]) -> None:
    measurement = Measurement(tuple(map(tuple, rounds_ms)))
    assert runner.spread(rounds_ms) == pytest.approx(measurement.spread, abs=1e-12)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300, unique=True))
def test_thinned_samples_keep_their_order_and_their_median(values: list[int]) -> None:
    samples = [value / 1e6 for value in values]
    kept = runner.thin(samples)
    assert len(kept) == min(len(samples), runner.KEPT)
    assert kept == [sample for sample in samples if sample in set(kept)]
    assert statistics.median_low(samples) <= statistics.median(kept) <= statistics.median_high(samples)


def test_a_turn_discards_the_first_calls() -> None:
    bench = Bench()
    bench.duration_ms["a"] = iter([50.0, 9.0, *[1.0] * 40])
    (event,) = bench.run(["a"], rounds=1)
    assert event["rounds_ms"] == [[1.0] * 3]
    assert event["first_ms"] == 50.0


def test_a_turn_discards_calls_until_the_warm_up_is_over() -> None:
    bench = Bench()
    bench.run(["a"], rounds=1, warmup_ms=10.0)
    assert len(bench.called) == 1 + 10 + 3


def test_a_turn_of_a_tiny_model_times_many_calls_and_keeps_few() -> None:
    bench = Bench()
    bench.duration_ms["a"] = 0.01
    (event,) = bench.run(["a"], rounds=1, min_ms=2.0, warmup_ms=0.0)
    assert len(bench.called) == 1 + 1 + 200
    assert len(event["rounds_ms"][0]) == runner.KEPT


def test_a_turn_ends_though_the_clock_stands_still() -> None:
    bench = Bench()
    bench.duration_ms["a"] = 0.0
    (event,) = bench.run(["a"], rounds=1)
    assert len(bench.called) == 1 + 2 * runner.MAX_CALLS
    assert not event["unstable"]


def test_the_time_for_which_another_program_has_the_core_is_no_part_of_a_call() -> None:
    bench = Bench()
    bench.duration_ms["a"] = 6.0  # by the clock; the thread had a core for 1.5 ms of the first call, for all of others
    had = iter([0, 1_500_000, 10_000_000, 16_000_100, 20_000_000, 26_000_100])
    samples = runner.time_turn(bench.call("a"), runner.Job("fake", [], warmup_ms=0.0), bench.clock, lambda: next(had))
    assert samples == [1.5, 6.0, 6.0]


def test_the_cores_clock_is_that_of_one_thread() -> None:
    assert runner.core_clock(2) is None
    assert runner.core_clock(1) is time.thread_time_ns


def test_every_model_of_a_group_has_one_turn_in_each_round_in_changing_order() -> None:
    names = list("abcdefgh")
    bench = Bench()
    bench.run(names, rounds=6)
    after_loading = bench.called[len(names) :]
    rounds = [after_loading[start : start + CALLS * 8 : CALLS] for start in range(0, len(after_loading), CALLS * 8)]
    assert len(rounds) == 6
    assert all(sorted(order) == names for order in rounds)
    assert len({tuple(order) for order in rounds}) == 6


def test_the_order_comes_from_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        bench = Bench()
        bench.run(list("abcdef"), seed=seed)
        orders.append(bench.turns)
    assert orders[0] == orders[1] != orders[2]


def test_groups_do_not_mix() -> None:
    bench = Bench()
    events = bench.run(list("abcde"), group=2)
    first = {name: bench.called.index(name) for name in "abcde"}
    last = {name: len(bench.called) - bench.called[::-1].index(name) for name in "abcde"}
    assert max(last["a"], last["b"]) <= min(first["c"], first["d"])
    assert max(last["c"], last["d"]) <= first["e"]
    assert {event["name"] for event in events[:2]} == {"a", "b"}


def test_rounds_that_disagree_are_measured_again_until_they_agree() -> None:
    bench = Bench()
    bench.duration_ms["a"] = per_round(1.0, 1.0, 2.0, 2.0, 1.0)
    b, a = bench.run(["a", "b"], rounds=4, min_calls=CALLS - 1, warmup_ms=0.0)
    assert (b["name"], b["attempts"], b["unstable"]) == ("b", 1, False)
    assert (a["name"], a["attempts"], a["unstable"]) == ("a", 2, False)
    assert a["rounds_ms"] == [[1.0] * (CALLS - 1)] * 4
    assert bench.called.count("b") == 1 + 4 * CALLS


def test_rounds_that_never_agree_are_measured_three_times_and_the_best_is_kept() -> None:
    bench = Bench()
    bench.duration_ms["a"] = per_round(1.0, 1.0, 3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 4.0, 4.0)
    (event,) = bench.run(["a"], rounds=4, min_calls=CALLS - 1, warmup_ms=0.0)
    assert (event["attempts"], event["unstable"]) == (3, True)
    assert {sample for samples in event["rounds_ms"] for sample in samples} == {1.0, 2.0}
    assert len(bench.called) == 1 + 3 * 4 * CALLS


def test_differences_under_a_microsecond_are_no_disagreement() -> None:
    assert runner.agree([[0.001], [0.001], [0.0015], [0.0015]], 0.1)
    assert not runner.agree([[0.01], [0.01], [0.015], [0.015]], 0.1)


def test_a_model_that_fails_in_a_later_round_is_reported_and_the_others_go_on() -> None:
    bench = Bench()
    bench.duration_ms["a"] = iter([1.0] * 20)  # then StopIteration, as an error of the runtime
    error, good = bench.run(["a", "b"])
    assert (error["name"], error["error"].split(":")[0]) == ("a", "StopIteration")
    assert (good["name"], len(good["rounds_ms"])) == ("b", 6)


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_its_lines_are_conditions_models_and_end(tmp_path: Path, runtime: str) -> None:
    good = WRITERS[runtime](tmp_path / f"good.{runtime}")
    broken = tmp_path / f"broken.{runtime}"
    broken.write_bytes(b"no model")
    missing = tmp_path / f"missing.{runtime}"
    events, status = finish(write_job(tmp_path, runtime, broken, good, missing, rounds=3))
    first, *models, last = events
    assert status == 0
    assert first["conditions"]["runtime"] == runtime
    assert last["end"] == 3
    assert last["conditions"].keys() == first["conditions"].keys()
    found = {event["name"]: event for event in models}
    assert "error" in found[broken.name]
    assert "error" in found[missing.name]
    assert [5 <= len(samples) <= 25 for samples in found[good.name]["rounds_ms"]] == [True] * 3
    assert found[good.name]["load_ms"] > 0 < found[good.name]["first_ms"]
    assert sys.platform != "linux" or found[good.name]["peak_memory_bytes"] is not None
    assert (found[good.name]["placement"]["processor"], found[good.name]["placement"]["whole"]) == ("cpu", True)
    assert last["pace"] == {"left_s": pytest.approx(0.0, abs=0.1)}


@pytest.mark.parametrize(("unlike", "taken", "of"), [(0, 1, 1), (1, 2, 3), (3, 4, 7)])
def test_it_tells_how_much_xnnpack_takes(tmp_path: Path, unlike: int, taken: int, of: int) -> None:
    model = write_tflite(tmp_path / "m.tflite", unlike=unlike)
    events, _ = finish(write_job(tmp_path, "tflite", model, rounds=1, canary=str(model)))
    (line,) = [event for event in events if "name" in event]
    placement = {"processor": "cpu", "delegate": "XNNPACK", "whole": not unlike, "operators": taken, "of": of}
    assert line["placement"] == {**placement, "partitions": of, "flags": []}
    assert {"canary": line["placement"]} in events


class Nodes:
    """An interpreter's list of nodes: an operator's name, what it reads and what it writes."""

    def __init__(self, *nodes: tuple[str, list[int], list[int]]) -> None:
        self.nodes = [{"op_name": name, "inputs": reads, "outputs": writes} for name, reads, writes in nodes]

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return self.nodes


def test_operators_without_a_delegate_are_all_left_to_the_runtime() -> None:
    told = runner.tflite_placement(Nodes(("CONV_2D", [0, 8], [1]), ("ADD", [1, 0], [2])))
    assert told is not None
    assert (told["whole"], told["operators"], told["of"], told["partitions"]) == (False, 0, 2, 1)


def test_branches_between_which_the_runtime_computes_are_one_piece_of_the_delegates() -> None:
    told = runner.tflite_placement(
        Nodes(
            ("DEQUANTIZE", [9], [8]),  # of constants
            ("CONV_2D", [0, 8], [1]),
            ("RELU", [0], [2]),
            ("CONV_2D", [0, 8], [3]),
            ("CONCATENATION", [1, 2, 3], [4]),
            ("RELU", [4], [5]),
            ("DELEGATE", [0, 9], [1, 3]),
            ("DELEGATE", [1, 2, 3], [4]),
        )
    )
    assert told is not None
    assert (told["operators"], told["of"], told["partitions"]) == (4, 6, 4)


def test_a_dynamic_batch_counts_as_one(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", ("batch", 4))
    (_, event, _), _ = finish(write_job(tmp_path, "onnx", model, rounds=1))
    assert "error" not in event


def test_an_input_of_an_unfit_type_is_an_error_of_that_model(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", element=onnx.TensorProto.INT64)
    (_, event, _), status = finish(write_job(tmp_path, "onnx", model))
    assert "must be float, int8 or uint8; got int64" in event["error"]
    assert status == 0


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_inputs_of_eight_bits_cover_their_range(dtype: str, low: int, high: int) -> None:
    values = runner.random_input((100, 100), dtype, 0)
    assert (values.min(), values.max(), values.dtype) == (low, high, np.dtype(dtype))


def test_without_a_runtime_it_says_what_it_tried(tmp_path: Path) -> None:
    broken = "raise ImportError('no such library')"
    modules = write_modules(tmp_path / "modules", ai_edge_litert=broken, tflite_runtime=broken)
    events, status = finish(write_job(tmp_path, "tflite"), path=modules)
    assert status == 3
    assert all(word in events[0]["error"] for word in ("ai_edge_litert", "tflite_runtime", "no such library"))


def test_tflite_runtime_serves_where_litert_is_not_and_its_prints_stay_out_of_the_lines(tmp_path: Path) -> None:
    fake = """
import os
class Interpreter:
    def __init__(self, model_path, num_threads): os.write(1, b"INFO: hello\\n")
    def allocate_tensors(self): pass
    def get_input_details(self): return [{"index": 3, "shape": [1, 2], "dtype": "float32"}]
    def set_tensor(self, index, value): assert (index, value.shape) == (3, (1, 2))
    def invoke(self): print("invoked")
"""
    modules = write_modules(tmp_path / "modules", ai_edge_litert="raise ImportError('no')", tflite_runtime=fake)
    events, status = finish(write_job(tmp_path, "tflite", tmp_path / "m", rounds=1), path=modules)
    assert status == 0
    assert events[0]["conditions"]["runtime_version"] == "tflite-runtime unknown"
    assert events[1]["rounds_ms"]
    assert events[1]["placement"] is None  # that one does not tell


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": 2}, "version must be 1; got 2"),
        (
            {"accelerator": "gpu"},
            "the accelerator must be cpu, as a runtime in Python is asked for nothing else; got gpu",
        ),
        ({"colour": "red"}, "colour"),
        ({"cores": [4095]}, "cores must be some of"),
        ({"runtime": "abacus"}, "runtime must be one of onnx, tflite; got 'abacus'"),
    ],
)
def test_an_impossible_job_is_an_error_line(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    events, status = finish(write_job(tmp_path, **{"runtime": "onnx", **options}))
    assert status == 3
    assert words in events[0]["error"]
    assert len(events) == 1


def test_it_ends_when_its_standard_input_closes(tmp_path: Path) -> None:
    job = write_job(tmp_path, "tflite", write_tflite(tmp_path / "m.tflite"), rounds=LONG)
    with spawn(job, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "conditions" in process.stdout.readline()
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(20) == ENDED_BY_WATCH


@pytest.mark.parametrize(("options", "status"), [([], ENDED_BY_WATCH), (["--no-watch"], -signal.SIGTERM)])
def test_only_without_a_watch_it_runs_without_standard_input(tmp_path: Path, options: list[str], status: int) -> None:
    job = write_job(tmp_path, "tflite", write_tflite(tmp_path / "m.tflite"), rounds=LONG)
    with spawn(job, *options, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if process.stdout.readline():
            process.terminate()
        assert process.wait(20) == status


def test_it_needs_nothing_of_hwnas_and_no_new_python() -> None:
    ast.parse(RUNNER.read_text(), feature_version=(3, 9))
    program = f"import runpy; runpy.run_path({str(RUNNER)!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


def test_it_chooses_fast_cores_then_real_ones_then_high_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity = {0: 400, 1: 400, 2: 400, 3: 1024, 4: 1024, 5: 1024}
    siblings = {3: "3-4", 4: "3-4"}
    monkeypatch.setattr(runner, "cpu_number", lambda core, name: capacity[core] if name == "cpu_capacity" else 0)
    monkeypatch.setattr(runner, "read_text", lambda path: siblings.get(int(path.split("/")[5][3:]), ""))
    assert runner.choose_cores(set(capacity), 1) == [5]
    assert runner.choose_cores(set(capacity), 2) == [4, 5]
    assert runner.choose_cores(set(capacity), 3) == [2, 4, 5]
    assert runner.choose_cores({0, 1}, 4) == [0, 1]


def test_an_arm_processor_is_named_by_its_board_and_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "/proc/cpuinfo": "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd08\n\nprocessor : 1\nCPU part : 0xd03",
        "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4",
    }
    monkeypatch.setattr(runner, "read_text", lambda path: told.get(path, ""))
    assert runner.cpu_name() == "Raspberry Pi 4 Model B Rev 1.4 0x41/0xd03 0x41/0xd08"


def test_files_of_the_kernel_that_cannot_be_listed_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, pattern: str) -> Iterator[Path]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "glob", refuse)
    assert runner.read_texts("/sys/class/thermal", "thermal_zone*/temp") == []
    assert runner.throttling([0])["firmware_flags"] is None
    assert runner.temperature_c() is None


def test_each_attempt_interleaves_only_what_is_left() -> None:
    bench = Bench()
    order = random.Random(0)
    job = runner.Job("fake", [], rounds=2)
    models = [runner.Model(name, bench.call(name), 0.0, 0.0) for name in "abc"]
    patience = bench.patience(job)
    turns = runner.time_rounds(
        models, job, order=order, turn=lambda call: runner.time_turn(call, job, bench.clock), patience=patience
    )
    assert list(turns) == []
    assert [model.attempts for model in models] == [1, 1, 1]


def test_a_canary_tells_a_slower_minute_from_a_slower_model() -> None:
    bench = Bench()
    turn = [1.0] * CALLS + [2.0] * CALLS  # calls of a round at full speed, and of one at half
    for name in ("canary", "steady"):
        bench.duration_ms[name] = iter(
            [1.0] * (name == "steady") + (turn[:CALLS] * 2 + turn[CALLS:] * 2 if name == "canary" else turn) * 9
        )
    steady = bench.run(["steady"], rounds=2, canary="canary", min_calls=CALLS - 1, min_ms=0.0, warmup_ms=0.0)[0]
    assert steady["canary_ms"] == [1.0, 2.0]
    assert steady["attempts"] == 1
    assert not steady["unstable"]
    assert [set(samples) for samples in steady["rounds_ms"]] == [{1.0}, {2.0}]


def test_without_a_canary_there_are_no_figures_of_one() -> None:
    assert Bench().run(["a"])[0]["canary_ms"] == []


def test_the_canary_has_a_turn_before_and_after_every_few_others() -> None:
    bench = Bench()
    bench.run([f"m{index}" for index in range(5)], rounds=1, canary="canary", canary_every=2)
    turns = bench.turns[5:]  # after the first calls
    assert [at for at, name in enumerate(turns) if name == "canary"] == [0, 3, 6, 8]


# Waiting.


def until(bench: Bench, end_s: float, before_ms: float, after_ms: float) -> Iterator[float]:
    """Yield what a call takes before and after a time on the bench's clock."""
    while True:
        yield before_ms if bench.now < end_s * 1e9 else after_ms


def waits(events: list[runner.Event]) -> list[float]:
    return [event["waiting"] for event in events if "waiting" in event]


def test_a_round_on_a_slow_device_is_measured_again_after_ever_longer_pauses() -> None:
    bench = Bench()
    for name in ("canary", "a"):
        bench.duration_ms[name] = until(bench, 3.0, 2.0, 1.0)
    events = bench.run(["a"], rounds=3, canary="canary", pace={"canary_ms": 1.0, "left_s": 9.0})
    assert waits(events) == bench.slept_s == [1.0, 2.0]
    assert {event["reason"] for event in events[:2]} == {"the device is slower by 100% than it was"}
    assert events[-1]["rounds_ms"] == [[1.0] * 3] * 3
    assert events[-1]["canary_ms"] == [1.0] * 3


def test_a_device_that_stays_slow_is_measured_when_the_time_to_wait_is_used_up() -> None:
    bench = Bench()
    for name in ("canary", "a"):
        bench.duration_ms[name] = 2.0
    events = bench.run(["a"], rounds=3, canary="canary", pace={"canary_ms": 1.0, "left_s": 9.0}, pause_s=3.0)
    assert waits(events) == [1.0, 2.0, 3.0, pytest.approx(2.9, abs=0.2)]
    assert sum(bench.slept_s) < 9.0
    assert events[-1]["canary_ms"] == [2.0] * 3


@given(
    canary_ms=st.lists(st.floats(0.5, 40.0), min_size=1, max_size=20),
    max_wait=st.sampled_from([0.0, 0.1, 0.5]),
    rounds=st.integers(1, 8),
)
@repeatable(15)
def test_what_waiting_costs_is_a_share_of_what_is_kept(canary_ms: list[float], max_wait: float, rounds: int) -> None:
    bench = Bench()
    bench.duration_ms["canary"] = per_round(*canary_ms)
    job = runner.Job(
        "fake", [{"name": "a", "path": "a"}], rounds=rounds, attempts=1, canary="canary", max_wait=max_wait
    )
    patience = bench.patience(job)
    events = as_read(runner.time_models(job, bench.load, patience))
    slept = sum(bench.slept_s)
    assert sum(waits(events)) == pytest.approx(slept, abs=0.01)
    assert slept <= max_wait * (bench.now / 1e9 - slept)
    assert len(events[-1]["rounds_ms"]) == rounds
    # the last look at the canary may itself take longer than is left
    assert patience.left_s >= -8 * max(canary_ms) / 1e3


def test_a_short_run_never_waits() -> None:
    bench = Bench()
    bench.duration_ms["canary"] = per_round(1.0, 1.0, 5.0)
    assert waits(bench.run(["a", "b"], canary="canary")) == []


def test_throttling_is_a_reason_to_wait_and_its_end_to_go_on() -> None:
    bench = Bench()
    job = runner.Job("fake", [{"name": "a", "path": "a"}], rounds=2, pace={"left_s": 9.0})
    told = iter([{"clock_limit": 1.0}, {"clock_limit": 0.5}, {"clock_limit": 0.5}])
    patience = bench.patience(job, lambda: next(told, {"clock_limit": 1.0}))
    first, second, a = runner.time_models(job, bench.load, patience)
    assert (first, second) == (
        {"waiting": 1.0, "reason": "its clock is limited to 50%"},
        {"waiting": 2.0, "reason": "its clock is limited to 50%"},
    )
    assert len(a["rounds_ms"]) == 2


def test_what_was_waited_for_too_long_is_owed_by_the_next_job() -> None:
    bench = Bench()
    bench.duration_ms["canary"] = per_round(1.0, 5.0)
    job = runner.Job("fake", [{"name": "a", "path": "a"}], rounds=2, attempts=1, canary="canary", pace={"left_s": 2.0})
    patience = runner.Patience(job, clock=bench.clock, sleep=lambda seconds: bench.sleep(seconds + 9.0))
    assert waits(as_read(runner.time_models(job, bench.load, patience)))
    assert patience.left_s < 0.0
    as_read([{"end": 1, "pace": patience.pace}])


def test_a_job_goes_on_with_the_pace_of_the_one_before() -> None:
    bench = Bench()
    first = bench.patience(runner.Job("fake", [], pace={"canary_ms": 0.5, "left_s": 2.0}))
    assert first.pace == {"canary_ms": 0.5, "left_s": 2.0}
    assert bench.patience(runner.Job("fake", [])).pace == {"left_s": 0.0}


@pytest.mark.parametrize(
    ("earlier", "later", "words"),
    [
        ({}, {}, ""),
        ({"throttle_count": None, "clock_limit": None, "firmware_flags": None}, {"throttle_count": None}, ""),
        ({"throttle_count": 3}, {"throttle_count": 3}, ""),
        ({"throttle_count": 3}, {"throttle_count": 5}, "the kernel throttled its cores 2 times"),
        ({"clock_limit": 0.8}, {"clock_limit": 0.8}, ""),
        ({"clock_limit": 0.8}, {"clock_limit": 0.6}, "its clock is limited to 60%"),
        ({"firmware_flags": 0x50000}, {"firmware_flags": 0x50000}, ""),
        ({"firmware_flags": 0x50000}, {"firmware_flags": 0x50004}, "its firmware tells of throttling"),
        (
            {"firmware_flags": 0x40000},
            {"firmware_flags": 0x50002},
            "its firmware tells of under-voltage; its firmware tells of a capped clock",
        ),
    ],
)
def test_throttling_is_told_in_words(earlier: runner.Event, later: runner.Event, words: str) -> None:
    assert runner.throttled(earlier, later) == words


def test_the_kernel_tells_of_throttling_by_core(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "cpu2/thermal_throttle/core_throttle_count": "4",
        "cpu3/thermal_throttle/core_throttle_count": "1",
        "cpu2/cpufreq/scaling_max_freq": "1500000",
        "cpu3/cpufreq/scaling_max_freq": "1800000",
        "cpu2/cpufreq/cpuinfo_max_freq": "1800000",
        "cpu3/cpufreq/cpuinfo_max_freq": "1800000",
    }
    monkeypatch.setattr(runner, "cpu_text", lambda core, name: told.get(f"cpu{core}/{name}", ""))
    monkeypatch.setattr(runner, "firmware_flags", lambda: 0x50000)
    assert runner.throttling([2, 3]) == {"throttle_count": 5, "clock_limit": 0.833, "firmware_flags": 0x50000}
    assert runner.throttling([1]) == {"throttle_count": None, "clock_limit": None, "firmware_flags": 0x50000}


@pytest.mark.parametrize(
    ("says", "flags"), [("echo throttled=0x50005", 0x50005), ("echo VCHI initialization failed; exit 255", None)]
)
def test_a_raspberry_pi_is_asked_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, flags: int | None
) -> None:
    command = tmp_path / "vcgencmd"
    command.write_text(f'#!/bin/sh\ntest "$1" = get_throttled && {says}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert runner.firmware_flags() == flags


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peak_memory_is_that_since_its_start_also_where_freed_memory_lies_about() -> None:
    lines = """
from hwnas.device import runner
for _ in range(2):
    memory = runner.PeakMemory()
    del [bytearray(1000) for _ in range(20_000)][:]
    print(memory.peak_bytes() or 0)
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert all(18e6 < int(size) < 40e6 for size in done.stdout.split())
    assert len(done.stdout.split()) == 2


def test_peak_memory_is_not_told_where_it_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(runner.Path, "write_text", refuse)
    assert runner.PeakMemory().peak_bytes() is None
