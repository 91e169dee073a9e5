"""Profiling on a pretended device: what it says, what the table remembers, what is measured again."""

import importlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from pretended import ABACUS, ScriptedDevice, write_device

import hwnas
from hwnas.device import Job
from hwnas.latency import Conditions
from hwnas.latency.measurement import OtherCosts
from hwnas.latency.table import LatencyTable
from hwnas.latency.where import table_lock
from hwnas.support import duration

VERB = importlib.import_module("hwnas.latency.profiling")
TABLE = Path("latency_tables/pretend/tflite-fp32-1t.json")
TINY: dict[str, Any] = {
    "space": "pnas",
    "setting": "tflite-fp32-1t",
    "cells": (1,),
    "filters": (4,),
    "resolution": (8,),
    "classes": 3,
}


def is_comparison(job: Job) -> bool:
    return any(model["name"] == "with" for model in job.models)


class Profiled(ScriptedDevice):
    """Takes 1 ms for everything; it can be unsteady, and have rewrites that are worth less."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.unsteady: set[str] = set()
        self.rewritten_ms = 0.5
        self.canary_ms = (0.1, 0.1)
        self.takes = self._takes

    def _takes(self, name: str) -> tuple[float, float]:
        if name == "with":
            return self.rewritten_ms, self.rewritten_ms
        return 1.0, 2.0 if name in self.unsteady else 1.0

    def next_conditions(self, job: Job) -> Conditions:
        return ABACUS if is_comparison(job) else super().next_conditions(job)

    @property
    def compared(self) -> list[Job]:
        """What had a network with all rewrites, and without each."""
        return [job for job in self.jobs if is_comparison(job)]

    @property
    def measured(self) -> list[Job]:
        """What was measured for the table."""
        return [job for job in self.jobs if not is_comparison(job)]


def models(jobs: list[Job], field: str = "name") -> list[str]:
    return [model[field] for job in jobs for model in job.models]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiled:
    monkeypatch.chdir(tmp_path)
    return Profiled(monkeypatch)


def test_it_says_first_what_it_will_do_and_then_how_long_that_takes(
    device: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(VERB, "say", said.append)
    (done,) = hwnas.profile("pretend", **TINY, networks=3, validate=1)
    assert said[1:3] == [
        "timing a few networks with and without split-depthwise",
        "split-depthwise: 0.50 of the time without it",
    ]
    assert f"to measure: {done.entries} operators in 6 rounds and 4 whole networks in 10, more where " in said[3]
    assert "at this device's pace that takes " in said[4]
    assert done.steadiness.reasons == []
    said.clear()
    hwnas.profile("pretend", **TINY, networks=3, validate=1)
    assert said[1:] == ["the table has all of it: nothing is measured"]


def test_the_table_remembers_from_what_networks_were_drawn_and_how_the_device_was(device: Profiled) -> None:
    hot = ABACUS.model_copy(update={"temperature_c": 70.0, "others_busy": 0.3, "clock_limit": 0.5})
    device.conditions = [ABACUS.model_copy(update={"temperature_c": 40.0, "clock_limit": 1.0}), hot, ABACUS]
    (done,) = hwnas.profile("pretend", **TINY, networks=3, validate=1, seed=5)
    (session,) = LatencyTable.read(TABLE).sessions
    assert (session.space, session.networks, session.seed, session.held_out) == ("pnas", 3, 5, 1)
    assert session.held_out_seed != session.seed
    assert (session.scales["cells"], session.scales["filters"], session.scales["resolution"]) == ([1], [4], [8])
    assert (session.before.temperature_c, session.after.temperature_c) == (40.0, None)
    assert (session.others_busy, session.throttled) == (0.3, "its clock is limited to 50%")
    assert "it throttled: its clock is limited to 50%" in done.steadiness.reasons
    hwnas.profile("pretend", **TINY, networks=3, validate=1, seed=5)
    assert LatencyTable.read(TABLE).sessions == [session]  # as nothing was measured


def test_other_costs_are_kept_with_whole_networks(device: Profiled) -> None:
    hwnas.profile("pretend", **TINY, networks=3)
    sizes = {len(file) for file in device.files.values()}
    for network in LatencyTable.read(TABLE).networks:
        assert network.other.file_bytes in sizes
        assert network.other == OtherCosts(network.other.file_bytes, 2000, 3.0, 4.0)


def test_pauses_are_said_once_and_counted(device: Profiled, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(VERB, "say", said.append)
    device.waits = [(1.0, "it is hot"), (2.0, "it is hot")]
    (done,) = hwnas.profile("pretend", **TINY, networks=0, max_wait=0.1)
    assert done.steadiness.waited_s == 3.0 * len(device.measured)
    assert [one for one in said if "hot" in one] == [
        "it is hot: it is given pauses, for 10% of the time at most (--max-wait)"
    ]
    told = [{"left_s": float(number + 1)} for number in range(len(device.jobs))]  # at the end of each
    assert [job.pace for job in device.jobs] == [{}, *told[:-1]]  # each chunk goes on with the pace of the one before


def test_only_unstable_entries_are_measured_again_when_asked_to(device: Profiled) -> None:
    hwnas.profile("pretend", **TINY, networks=3)
    key = sorted(LatencyTable.read(TABLE).entries)[0]
    device.unsteady = {key, "network 1"}
    (done,) = hwnas.profile("pretend", **TINY, networks=3, fresh=True)
    assert done.unstable == 1
    assert done.steadiness.remedies == []  # one of many
    device.jobs.clear()
    hwnas.profile("pretend", **TINY, networks=3)
    assert device.jobs == []
    device.unsteady = set()
    (done,) = hwnas.profile("pretend", **TINY, networks=3, unstable=True)
    assert (set(device.timed), done.unstable, done.measured_now) == ({key, "network 1"}, 0, 1)
    assert not any(network.measurement.unstable for network in LatencyTable.read(TABLE).networks)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89.0, "89 s"), (90.0, "1.5 min"), (7200.0, "2 h")])
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("setting", "kind"), [("tflite-fp32-1t", np.float32), ("tflite-int8-1t", np.int8)])
def test_what_is_timed_is_of_the_settings_precision(device: Profiled, setting: str, kind: type) -> None:
    hwnas.profile("pretend", **{**TINY, "setting": setting}, networks=0)
    interpreter = Interpreter(model_content=list(device.files.values())[-1])
    (detail,) = interpreter.get_input_details()[:1]
    assert detail["dtype"] is kind


def test_a_model_is_written_once_for_all_passes(device: Profiled) -> None:
    (done,) = hwnas.profile("pretend", **TINY, networks=2)
    assert len(models(device.measured)) == 3 * done.entries + 5 * 2
    assert len(set(models(device.measured, "path"))) == done.entries + 2


@pytest.mark.parametrize(("rewritten_ms", "slower"), [(0.5, ()), (2.0, ("split-depthwise",))])
def test_a_rewrite_that_is_slower_on_the_device_is_left_out_for_good(
    device: Profiled, rewritten_ms: float, slower: tuple[str, ...]
) -> None:
    device.rewritten_ms = rewritten_ms
    hwnas.profile("pretend", **TINY, networks=8)
    table = LatencyTable.read(TABLE)
    assert table.rewrites == {"split-depthwise": rewritten_ms}
    assert table.setting.without == slower
    assert any(" 7x7 g" in key for key in table.entries) == bool(slower)
    assert len(device.compared) == 4
    (searched,) = hwnas.profile("pretend", **{**TINY, "cells": (2,)}, networks=8)
    assert searched.measured_now
    assert len(device.compared) == 4  # nor is it asked again
    assert LatencyTable.read(TABLE).setting.without == slower


def test_a_table_of_before_there_were_choices_keeps_its_rewrites(device: Profiled) -> None:
    device.rewritten_ms = 2.0
    hwnas.profile("pretend", **TINY, networks=8)
    table = LatencyTable.read(TABLE)
    table.rewrites = {}
    table.save()
    content = json.loads(TABLE.read_text())
    assert content["setting"].pop("without") == ["split-depthwise"]
    TABLE.write_text(json.dumps(content))
    hwnas.profile("pretend", **TINY, networks=9)
    assert LatencyTable.read(TABLE).setting.without == ()


@pytest.mark.slow
def test_two_profiles_of_one_device_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """One at a time: the later one reads the table that the earlier one has left."""
    write_device(tmp_path)
    sides = ("--resolution", "8", "--classes", "3", "--cells", "1", "--networks", "2", "--json")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hwnas.cli", "profile", "pretend", *sides, "--filters", filters],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for filters in ("4", "6", "8")
    ]
    printed = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], printed
    assert sum("another hwnas writes" in " ".join(said.split()) for _, said in printed) == 2
    table = LatencyTable.read(tmp_path / TABLE)
    measured = [json.loads(result)[0]["measured_now"] for result, _ in printed]
    assert min(measured) > 0
    assert sum(measured) == len(table.entries)
    assert sorted(session.scales["filters"] for session in table.sessions) == [[4], [6], [8]]


def test_a_merge_waits_for_a_profile_of_the_same_table(tmp_path: Path) -> None:
    path, entered = tmp_path / "host" / "a.json", threading.Event()

    def hold() -> None:
        with table_lock(path):
            entered.set()
            order.append("held")
            time.sleep(0.3)
            order.append("left")

    order: list[str] = []
    other = threading.Thread(target=hold)
    other.start()
    entered.wait()
    with table_lock(path):
        order.append("taken")
    other.join()
    assert order == ["held", "left", "taken"]
