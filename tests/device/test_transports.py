"""Transports to this machine, by the contract of all; those to others have files of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.device import Device, Setting
from hwnas.device.transports import Transport, open_transport
from hwnas.errors import DeviceError, UnknownNameError
from hwnas.testing import TimingContract, TransportContract


def device(transport: str, *, python: str = "") -> Device:
    return Device(name="here", transport=transport, python=python, settings=(Setting(runtime="onnx"),))


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


class TestPretend(TimingContract):
    @pytest.fixture
    def transport(self) -> Iterator[Transport]:
        with open_transport(device("pretend")) as transport:
            yield transport


def test_an_unknown_transport_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown transport 'pigeon'; known: .*local"):
        open_transport(device("pigeon"))
