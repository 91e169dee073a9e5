"""What files name is started or reached once it was agreed to; that is kept, for this very content."""

from pathlib import Path

import pytest

from hwnas.errors import InputError
from hwnas.support import check_trusted, keep_trusted, private_folder, trusting


@pytest.fixture(autouse=True)
def _nothing_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without anything agreed to, and without a terminal."""
    monkeypatch.delenv("HWNAS_TRUST")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def refuses(what: str, content: bytes = b"") -> bool:
    try:
        check_trusted(what, content, named_by="a file")
    except InputError:
        return True
    return False


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Pretend a terminal on which this is answered."""
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, **options: text == "y")


def test_what_nobody_can_be_asked_about_is_refused_with_what_to_type() -> None:
    with pytest.raises(InputError, match=r"devices/a.toml names /opt/a. .*type the same command with --trust"):
        check_trusted("/opt/a", named_by="devices/a.toml")


def test_the_option_agrees_and_that_is_kept_for_this_content_alone() -> None:
    with trusting():
        assert not refuses("/opt/a", b"one")
    assert not refuses("/opt/a", b"one")
    assert refuses("/opt/a", b"another")
    assert refuses("/opt/b", b"one")


def test_the_environment_agrees_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_TRUST", "1")
    assert not refuses("/opt/a")
    monkeypatch.setenv("HWNAS_TRUST", "0")
    assert refuses("/opt/a")


def test_a_terminal_is_asked_once_and_a_no_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "n")
    assert refuses("/opt/a")
    answer(monkeypatch, "y")
    assert not refuses("/opt/a")
    answer(monkeypatch, "n")
    assert not refuses("/opt/a")


def test_what_was_agreed_to_is_in_a_file_of_this_user_alone_and_is_forgotten_with_it() -> None:
    keep_trusted("/opt/a")
    (kept,) = private_folder().glob("*.json")
    assert "/opt/a" in kept.read_text()
    kept.unlink()
    assert refuses("/opt/a")


def test_a_name_that_steers_the_terminal_is_shown_without_it() -> None:
    with pytest.raises(InputError) as caught:
        check_trusted("/opt/\x1b[2Ka", named_by="devices/a.toml\r")
    assert not any(one in str(caught.value) for one in "\x1b\r")
