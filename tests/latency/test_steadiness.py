"""What is said of a device that was steady while it was measured, and of one that was not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hwnas.device.device import Setting
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement
from hwnas.latency.steadiness import foreseen, judge
from hwnas.latency.table import LatencyTable, Session

CONDITIONS = Conditions(temperature_c=41.0, frequency_mhz=(1800.0, 1500.0), governor="performance")
SESSION = Session(
    space="pnas",
    scales={"cells": [1, 2], "filters": [4], "resolution": [28], "classes": [10], "input_channels": [1]},
    networks=32,
    seed=0,
    held_out=0,
    held_out_seed=7,
    before=CONDITIONS,
    after=CONDITIONS.model_copy(update={"temperature_c": 55.0}),
)


def table(canary_ms: tuple[float, ...] = (1.0, 1.0), *, unstable: int = 0, **session: Any) -> LatencyTable:
    """Return a table of twenty entries, so many of them unstable."""
    entries = {
        str(at): Measurement(((2.0,),) * len(canary_ms), canary_ms=canary_ms, unstable=at < unstable)
        for at in range(20)
    }
    sessions = [dataclasses.replace(SESSION, **session)]
    return LatencyTable(Path("table.json"), "pi", Setting(runtime="tflite"), Conditions(), entries, [], sessions)


def test_a_steady_device_is_said_to_be_so_with_its_figures() -> None:
    said = str(judge(table(waited_s=12.4, others_busy=0.02)))
    assert said == (
        "the device was steady: slower by 0% or more in a tenth of the rounds, 0.0% of the entries unstable, "
        "41 °C before, 55 °C after, 1500 MHz, governor performance, waited 12 s for it"
    )


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"throttled": "its clock is limited to 60%"}, "it throttled: its clock is limited to 60%", "cool it: a fan"),
        ({"throttled": "its firmware tells of under-voltage"}, "under-voltage", "give it a stronger power supply"),
        ({"others_busy": 0.84}, "other programs took up to 84% of its cores", "stop other programs"),
        ({"canary_ms": (1.0, 1.0, 1.3)}, "its speed changed too much", "measure when nothing else runs"),
        ({"unstable": 2}, "too many entries are unstable", "measure when nothing else runs"),
        (
            {"unstable": 2, "after": Conditions(governor="powersave")},
            "too many entries are unstable",
            "fix its clock: the governor is powersave; `cpupower frequency-set -g performance`",
        ),
    ],
)
def test_an_unsteady_device_is_said_to_be_so_with_the_remedy(changes: dict[str, Any], reason: str, remedy: str) -> None:
    found = judge(table(**changes))
    first, *remedies = str(found).splitlines()
    assert first.startswith("the device was unsteady: ")
    assert reason in first
    assert remedies[0].strip().startswith(remedy)
    which = "unstable" if "unstable" in changes else "fresh"
    assert remedies[-1] == (
        "  then type: hwnas profile pi --setting tflite-fp32-1t --space pnas --cells 1,2 --filters 4 --resolution 28 "
        f"--channels 1 --classes 10 --networks 32 --validate 0 --seed 0 --{which}"
    )


def test_reasons_that_one_remedy_serves_name_it_once() -> None:
    found = judge(table((1.0, 1.0, 2.0), unstable=9, others_busy=0.5))
    assert len(found.reasons) == 2
    assert len(found.remedies) == 3


def test_of_a_table_without_sessions_and_canary_only_its_entries_are_judged() -> None:
    old = table(())
    old.sessions = []
    old.entries = {"add": Measurement(((1.0,),), unstable=True)}
    found = judge(old)
    assert (found.drift, found.others_busy, found.reasons) == (None, None, ["too many entries are unstable"])
    assert found.remedies[-1] == "then type: hwnas profile pi --setting tflite-fp32-1t --fresh"


@pytest.mark.parametrize(
    ("now", "causes"),
    [
        (Conditions(others_busy=0.05, governor="performance", throttle_count=7, clock_limit=1.0), []),
        (Conditions(), []),
        (Conditions(others_busy=0.5), [("other programs take 50% of its cores", "stop other programs")]),
        (
            Conditions(governor="ondemand"),
            [("its clock changes with the load", "fix its clock: the governor is ondem")],
        ),
        (Conditions(clock_limit=0.6), [("it throttles: its clock is limited to 60%", "cool it: a fan")]),
        (Conditions(firmware_flags=1), [("it throttles: its firmware tells of under-vol", "give it a stronger power")]),
    ],
)
def test_what_will_be_unsteady_is_foreseen_with_its_remedy(now: Conditions, causes: list[tuple[str, str]]) -> None:
    told = foreseen(now)
    assert len(told) == len(causes)
    for (cause, remedy), (words, todo) in zip(told, causes, strict=True):
        assert cause.startswith(words)
        assert remedy.startswith(todo)


@pytest.mark.parametrize(
    ("first", "last", "seconds"),
    [
        ("2026-11-30T10:00:00Z", "2026-11-30T10:06:30Z", 390.0),
        ("", "2026-11-30T10:06:30Z", None),
        ("2026-11-30", "2026-11-30T10:06:30Z", None),
    ],
)
def test_a_session_tells_how_long_it_took_where_its_conditions_tell_the_time(
    first: str, last: str, seconds: float | None
) -> None:
    session = dataclasses.replace(SESSION, before=Conditions(date=first), after=Conditions(date=last))
    assert session.seconds == seconds
