"""A storage's password is in the environment: no file, page, error or command line of hwnas has it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.errors import InputError
from hwnas.runs import study
from hwnas.runs.run import Run
from hwnas.runs.storage import check_storage, is_same_storage, opened_storage, shown_storage, without_password
from hwnas.searching import loop

SECRET = "p@ss/wörd:1"
URL = "postgresql://me:$HWNAS_TEST_PASSWORD@db.example/studies"
IN_THE_OPEN = [
    "postgresql://me:hunter2@db.example/studies",
    "postgresql://me:hunter@2@db.example/studies",
    "postgresql://me:a$B@db.example/studies",
    "postgresql:///studies?user=me&password=hunter2",
    "mysql+pymysql://me@db.example/studies?ssl_key=k&PASSWD=hunter2",
    "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2",
]


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_TEST_PASSWORD", SECRET)


@pytest.fixture
def database(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a file in the place of any database; return the URLs that were opened."""
    opened: list[str] = []

    def instead(storage: str) -> str:
        opened.append(opened_storage(storage))
        return f"sqlite:///{workplace}/study.db"

    monkeypatch.setattr(study, "opened_storage", instead)
    return opened


def search(**options: Any) -> hwnas.Searched:
    defaults: dict[str, Any] = {"max_latency_ms": 1.0, "data": "npz:images.npz", "cells": (1,), "filters": (4, 6)}
    defaults |= {
        "space": "pnas",
        "estimator": "size",
        "strategy": "random",
        "predicted": True,
        "trials": 1,
        "out": "run",
    }
    return hwnas.search(**{**defaults, **options})


def files_with(words: str, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


@pytest.mark.parametrize("url", IN_THE_OPEN)
def test_a_password_in_the_open_is_refused_without_showing_it(workplace: Path, url: str) -> None:
    with pytest.raises(InputError, match="name an environment variable in the place of its password") as caught:
        search(storage=url)
    assert "hunter" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@db.example:port/studies", "me:hunter2"])
def test_what_is_no_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InputError, match="--storage must be a URL") as caught:
        check_storage(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", [None, "sqlite:///study.db", URL, URL.replace("$HWNAS_TEST_PASSWORD", "${DB}"), "a://"])
def test_a_storage_without_a_password_in_the_open_is_taken(url: str | None) -> None:
    check_storage(url)


def test_the_variable_is_looked_up_when_the_storage_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened_storage(URL) == "postgresql://me:p%40ss%2Fw%C3%B6rd%3A1@db.example/studies"
    assert opened_storage(URL.replace("$HWNAS_TEST_PASSWORD", "${HWNAS_TEST_PASSWORD}")) == opened_storage(URL)
    assert opened_storage("sqlite:///$HOME.db") == "sqlite:///$HOME.db"
    monkeypatch.delenv("HWNAS_TEST_PASSWORD")
    with pytest.raises(InputError, match=r"got no HWNAS_TEST_PASSWORD\. Type: export HWNAS_TEST_PASSWORD="):
        opened_storage(URL)


def test_no_file_of_a_run_has_the_password(workplace: Path, database: list[str]) -> None:
    search(storage=URL)
    search(storage=URL, trials=2)
    page = Path(hwnas.report("run").page).read_text()
    assert all("p%40ss" in url for url in database)
    assert len(database) >= 3
    assert URL in page
    assert json.loads(Path("run/settings.json").read_text())["storage"] == URL
    assert files_with("p%40ss", workplace) == files_with(SECRET, workplace) == []


def test_workers_are_told_where_the_run_is_and_nothing_else(
    workplace: Path, database: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(loop, "supervise", lambda options, **_: told.append(options))
    search(storage=URL, workers=2)
    assert told == [{"folder": "run", "since": 0}]


def test_an_error_of_the_database_does_not_show_the_password(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: Any) -> None:
        raise ValueError(f"cannot open {options['storage']} with {SECRET}")

    monkeypatch.setattr("optuna.create_study", fails)
    with pytest.raises(InputError, match="--storage must be a URL that Optuna knows") as caught:
        search(storage=URL)
    assert "p%40ss" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert without_password("nothing secret", "sqlite:///study.db") == "nothing secret"


def keep_in_the_open() -> None:
    """Let the run's settings have their password, as an older hwnas kept it."""
    settings = json.loads(Path("run/settings.json").read_text())
    Path("run/settings.json").write_text(
        json.dumps({**settings, "storage": URL.replace("$HWNAS_TEST_PASSWORD", "hunter2")})
    )


def test_a_run_of_before_goes_on_and_loses_the_password_from_its_files(workplace: Path, database: list[str]) -> None:
    search(storage=URL)
    keep_in_the_open()
    page = Path(hwnas.report("run").page).read_text()
    assert "hunter2" not in page
    assert "postgresql://***" in page
    assert "hunter2" in database[-1]
    search(storage=URL, trials=2)
    assert files_with("hunter2", workplace) == []


def test_going_on_with_another_database_is_refused(workplace: Path, database: list[str]) -> None:
    search(storage=URL)
    keep_in_the_open()
    with pytest.raises(InputError, match=r"begun with another storage, postgresql://\*\*\*; got none"):
        search()
    with pytest.raises(
        InputError, match=r"begun with another storage, postgresql://\*\*\*; got postgresql://me:\$X@other"
    ):
        search(storage="postgresql://me:$X@other.example/studies")


@pytest.mark.parametrize(
    ("other", "same"),
    [(URL.replace("$HWNAS_TEST_PASSWORD", "$X"), True), (URL.replace("db.", "bd."), False), (None, False)],
)
def test_two_storages_are_one_whatever_the_password(other: str | None, same: bool) -> None:
    assert is_same_storage(URL, other) is same


@pytest.mark.parametrize("url", IN_THE_OPEN)
def test_what_is_shown_of_a_password_in_the_open_is_nothing(url: str) -> None:
    assert shown_storage(url) == f"{url.partition(':')[0]}://***"
    assert shown_storage(URL) == URL


# Whose database it is.


def report() -> None:
    hwnas.report("run")


def train() -> None:
    hwnas.train("run")


def trials() -> None:
    Run.open("run").trials()


@pytest.fixture
def careful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agree to nothing that was not typed."""
    monkeypatch.delenv("HWNAS_TRUST")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("call", [report, train, trials])
def test_a_database_that_a_run_of_others_names_is_not_opened_nor_sent_a_variable(
    workplace: Path, database: list[str], careful: None, call: Callable[[], None]
) -> None:
    search(storage=URL)  # typed, so agreed to
    trials()
    settings = json.loads(Path("run/settings.json").read_text())
    theirs = "postgresql://me:$HWNAS_TEST_PASSWORD@elsewhere.example/studies"
    Path("run/settings.json").write_text(json.dumps({**settings, "storage": theirs}))
    opened = list(database)
    with pytest.raises(InputError, match=r"settings\.json names storage postgresql://.*elsewhere.*--trust"):
        call()
    assert database == opened


def test_nor_one_that_a_config_of_others_names(workplace: Path, database: list[str], careful: None) -> None:
    Path("all.toml").write_text(f'out = "run"\n[search]\nmax_latency_ms = 1.0\nstorage = "{URL}"\n')
    with pytest.raises(InputError, match=r"all\.toml names storage postgresql://"):
        hwnas.run("all.toml")
    Path("all.toml").write_text(f'out = "run"\n[search]\nmax_latency_ms = 1.0\nstorage = "{IN_THE_OPEN[0]}"\n')
    with pytest.raises(InputError, match=r"all\.toml: \[search\] storage: --storage must name an environment variable"):
        hwnas.run("all.toml")
    assert database == []


def test_a_report_of_trials_that_are_elsewhere_is_not_watched(workplace: Path) -> None:
    search(storage="sqlite:///study.db")
    with pytest.raises(InputError, match=r"trials of run are in sqlite:///study.db.* hwnas report run$"):
        hwnas.report("run", watch=True)
