"""Ctrl-C and SIGTERM: raised where a verb works, and held back where they would do harm."""

import importlib
import os
import signal
import time
from pathlib import Path

import pytest

from hwnas.support import Terminated, held, raised

BOTH = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), BOTH)
def test_a_block_that_holds_stops_back_is_done_whole(number: signal.Signals, error: type[BaseException]) -> None:
    done = []

    def work() -> None:
        with held() as stops:
            send(number)
            send(number)
            done.append(stops.is_set())
        done.append("too much")

    with raised(), pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert caught.type is error
    assert done == [True]


def test_a_stop_that_is_held_back_counts_for_more_than_an_error() -> None:
    def work() -> None:
        with held():
            send(signal.SIGTERM)
            raise OSError("a full disk")

    with raised(), pytest.raises(Terminated):
        work()


@pytest.mark.parametrize(("number", "error"), BOTH)
def test_a_stop_in_an_import_comes_when_that_is_over(
    number: signal.Signals, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"stops_{number.name.lower()}"
    (tmp_path / f"{name}.py").write_text(
        f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    pass\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imported = []

    def work() -> None:
        imported.append(importlib.import_module(name).whole)
        time.sleep(30)

    with raised(), pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert caught.type is error
    assert imported == [True]


@pytest.mark.parametrize(("number", "error"), BOTH)
def test_a_stop_in_a_finaliser_is_not_lost(number: signal.Signals, error: type[BaseException]) -> None:
    class Finalised:
        def __del__(self) -> None:
            send(number)

    def work() -> None:
        ended = Finalised()
        del ended
        time.sleep(30)

    with raised(), pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert caught.type is error


@pytest.mark.parametrize(("number", "error"), BOTH)
def test_a_stop_of_which_a_library_makes_an_error_is_a_stop(number: signal.Signals, error: type[BaseException]) -> None:
    def work() -> None:
        try:
            send(number)
        except KeyboardInterrupt as stop:
            raise ValueError(str(stop)) from None

    with pytest.raises(KeyboardInterrupt) as caught, raised():
        work()
    assert caught.type is error


def test_an_error_without_a_stop_is_that_error() -> None:
    with pytest.raises(ValueError, match="of its own"), raised():
        raise ValueError("of its own")


def test_signals_are_as_before_in_the_end() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with raised(), held():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with raised(), held():
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
