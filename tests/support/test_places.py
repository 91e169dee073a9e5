"""The user's own devices and tables lie in HWNAS_ROOT, or else in the current folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hwnas
from hwnas import datasets
from hwnas.device import load_device
from hwnas.errors import InputError
from hwnas.support import expanded, private_folder, root

TINY: dict[str, Any] = {"space": "mbconv", "cells": (1,), "filters": (4,), "resolution": (8,), "classes": 3}


def test_the_root_is_the_current_folder_or_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWNAS_ROOT", raising=False)
    assert root() == tmp_path
    monkeypatch.setenv("HWNAS_ROOT", "")
    assert root() == tmp_path
    monkeypatch.setenv("HWNAS_ROOT", "below")
    assert root() == tmp_path / "below"
    monkeypatch.setenv("HOME", "/home/of")
    monkeypatch.setenv("HWNAS_ROOT", "~/mine")
    assert root() == Path("/home/of/mine")


def test_devices_and_tables_are_written_and_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HWNAS_ROOT", str(mine))
    added = hwnas.devices_add("board", transport="pretend", setting="tflite-fp32-1t")
    assert Path(added.path) == mine / "devices" / "board.toml"
    assert load_device("board").transport == "pretend"
    (done,) = hwnas.profile("board", **TINY, networks=2)
    assert Path(done.table) == mine / "latency_tables" / "board" / "tflite-fp32-1t.json"
    assert [shown.device for shown in hwnas.tables_show("board")] == ["board"]
    assert not any(elsewhere.iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hwnas"


def test_the_private_folder_is_made_once_for_this_user_alone(cache: Path) -> None:
    assert private_folder() == cache / ".private"
    assert private_folder().stat().st_mode & 0o777 == 0o700
    (private_folder() / "kept").touch()
    assert [path.name for path in private_folder().iterdir()] == ["kept"]


def test_a_private_folder_that_others_may_write_to_is_refused_with_what_to_type(cache: Path) -> None:
    private_folder().chmod(0o770)
    with pytest.raises(InputError, match=r"only this user can read and write; got permissions 770\. .*chmod 700"):
        private_folder()


def test_a_private_folder_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder()
    owner = cache.stat().st_uid
    monkeypatch.setattr("hwnas.support.places.os.geteuid", lambda: owner + 1)
    with pytest.raises(InputError, match=f"got one of the user with number {owner}"):
        private_folder()


def test_a_link_or_a_file_in_the_private_folders_place_is_refused(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (cache / ".private").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="got a link or a file"):
        private_folder()
    (cache / ".private").unlink()
    (cache / ".private").touch()
    with pytest.raises(InputError, match="File exists"):
        private_folder()


def test_a_cache_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"Not a directory.*by XDG_CACHE_HOME"):
        private_folder()


@pytest.fixture
def _homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be one of those whom a container runs as a mere number."""
    for name in ("HOME", "XDG_CACHE_HOME", "HWNAS_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 987_654)


@pytest.mark.usefixtures("_homeless")
@pytest.mark.parametrize("what", [private_folder, lambda: expanded("~/a"), lambda: expanded("~nobody-is-called-so/a")])
def test_whoever_has_no_home_is_told_what_to_do(what: Callable[[], Path]) -> None:
    with pytest.raises(InputError, match=r"~ must stand for a home folder; there is none for ~.* by HOME"):
        what()


@pytest.mark.usefixtures("_homeless")
def test_without_a_home_devices_are_listed_and_photos_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = {device.name: device.settings[0].missing for device in hwnas.devices()}
    assert "there is none for ~/.cache" in listed["arm64-qemu"]
    monkeypatch.setattr("hwnas.datasets._heads._KEPT_FROM", 10)
    for number in range(30):
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 8 * number).save(path)
    assert len(datasets.load("folder:photos").classes) == 3


@pytest.mark.parametrize("data", ["npz:~nobody-is-called-so/images.npz", "folder:~nobody-is-called-so"])
def test_the_home_of_nobody_is_no_traceback(data: str) -> None:
    with pytest.raises(InputError, match="~ must stand for a home folder"):
        datasets.load(data)


@pytest.mark.parametrize(
    ("number", "remedy"), [(30, "Give permission to write there, or name another folder"), (28, "Make room")]
)
def test_a_cache_that_cannot_be_written_is_named_with_what_helps(
    number: int, remedy: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, **_: object) -> None:
        raise OSError(number, "refused", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError) as caught:
        private_folder()
    assert str(caught.value) == (
        f"the system refused a file: {cache / '.private'}: refused. {remedy}, or name another cache folder by "
        "XDG_CACHE_HOME, and type the same command again"
    )
