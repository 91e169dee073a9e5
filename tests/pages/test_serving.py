"""`hwnas report --watch`: the page alone is served, to this machine alone, and anew when its run has changed."""

import http.client
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.errors import InputError
from hwnas.pages.serving import PageServer, serving
from hwnas.verbs.report import _state, report
from pages.test_report import make_run, move_to, write_winner

PAGE = """<html><meta content="default-src 'none'; img-src data:"><body>first</body></html>"""


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serving(0) as pages:
        pages.show(PAGE)
        yield pages


def ask(address: str, method: str = "GET", path: str = "/", host: str | None = None) -> tuple[int, str, str]:
    """Return the status, the tag and the content of an answer."""
    place = address.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(place, timeout=60)
    connection.request(method, path, headers={"Host": place if host is None else host})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, answer.headers.get("ETag", ""), content


def test_the_page_is_served_with_a_script_that_its_policy_allows(server: PageServer) -> None:
    status, tag, content = ask(server.address)
    assert (status, len(tag)) == (200, 18)
    assert ask(server.address, "HEAD") == (200, tag, "")
    assert "<body>first<script" in content
    assert f"data-tag={tag}" in content
    assert re.search(r"default-src 'none'; script-src 'sha256-[^']+'; connect-src 'self'; img-src data:", content)
    server.show(PAGE.replace("first", "second"))
    assert ask(server.address, "HEAD")[1] != tag
    assert "<body>second<script" in ask(server.address)[2]


@pytest.mark.parametrize("path", ["/report.html", "/../settings.json", "/?x", "//runs", "/runs/", "*", "http://a/"])
def test_nothing_else_is_served(server: PageServer, path: str) -> None:
    assert ask(server.address, path=path) == (404, "", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_can_only_be_read(server: PageServer, method: str) -> None:
    assert ask(server.address, method)[0] == 501


@pytest.mark.parametrize("host", ["", "example.org", "example.org:80", "127.0.0.1.example.org", "0.0.0.0"])
def test_a_name_that_another_site_points_here_gets_nothing(server: PageServer, host: str) -> None:
    assert ask(server.address, host=host) == (403, "", "")
    port = server.address.rstrip("/").rpartition(":")[2]
    assert ask(server.address, host=f"localhost:{port}")[0] == 200


def test_a_port_that_is_taken_is_said(server: PageServer) -> None:
    port = int(server.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=rf"--port must be free; got {port}"), serving(port):
        pass


def test_a_port_is_of_a_page_that_is_served(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--port is of --watch"):
        report(str(tmp_path), port=8000)


def until(seen: str, address: str, *, seconds: float = 240) -> str:
    """Return the page once this is on it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if seen in (content := ask(address)[2]):
            return content
        time.sleep(0.2)
    raise AssertionError(f"no {seen!r} after {seconds} s")


def test_what_the_report_writes_is_no_change_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(move_to(tmp_path, monkeypatch) / "runs" / "a")
    before = _state(run.folder)
    report(str(run.folder))
    assert (run.folder / "report.html").exists()
    assert _state(run.folder) == before
    write_winner(run, 4)
    assert _state(run.folder) != before


@pytest.mark.slow
@pytest.mark.timeout(900)  # it draws four pages
def test_the_page_follows_the_run_until_ctrl_c(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    command = [sys.executable, "-m", "hwnas.cli", "report", str(run.folder), "--watch"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())
            assert address
            assert "No winner is trained yet" in ask(address[0])[2]
            path = write_winner(run, 4)
            until("Trial 4: 90.00 % after long training", address[0])
            whole = path.read_text()
            path.write_text("{")
            assert "must be JSON" in until("No report yet", address[0])
            path.write_text(whole)
            until("Trial 4: 90.00 %", address[0])
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    assert f"no longer serving {address[0]}" in said
    assert str(run.folder / "report.html") in out
