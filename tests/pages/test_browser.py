"""The report in a browser: nothing is fetched, nothing hangs over at a phone's width, all can be read and reached."""

import html
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest

from pages.test_report import (
    TRAINED,
    make_run,
    move_to,
    page_of,
    write_card,
    write_scores,
    write_table,
    write_winner,
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PHONE, DESK = 390, 1280
SCRIPT = Path(__file__).with_name("look.js").read_text()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the page is drawn, and looked at, once for all
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: ./apt-install chromium"),
]


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": at, "step": at, "loss": 2 / at, "learning_rate": 0.1, "seconds": at, "accuracy": 1 - 0.5 / at}
        for at in range(1, epochs + 1)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run that has everything: many trials, an exported winner with scores, and one without."""
    with pytest.MonkeyPatch.context() as patch:
        home = move_to(tmp_path_factory.mktemp("home"), patch)
        run = make_run(home / "runs" / "a-run-with-a-name-that-is-so-long-that-it-must-be-broken")
        study = run.trials().study
        trained = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.COMPLETE]
        for trial in 5 * trained:
            study.add_trial(trial)
        write_table(home)
        write_winner(run, 1, history=history(3))
        write_winner(run, 4, history=history(5))
        write_scores(run, 4)
        compared = {"images": [40] * 10, "right": [35] * 10, "right_in_pytorch": [36] * 10}
        exported = {"runtime": "tflite", "precision": "int8", "bytes": 9, "accuracy": 0.875, "by_class": compared}
        write_card(run, 4, files={"model.int8.tflite": exported})
        assert len(trained) == len(TRAINED)
        return page_of(run)[1]


@cache
def looked_at(page: str, folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """Return what look.js finds on the page at a width in pixels."""
    shown = page.replace("@media (prefers-color-scheme: dark)", "@media all") if dark else page
    frame = (
        f'<iframe id="page" style="width: {width}px; height: 900px; border: 0" srcdoc="{html.escape(shown)}"></iframe>'
    )
    path = folder / f"{width}-{dark}.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{frame}<pre id=findings></pre><script>{SCRIPT}</script>")
    options = [
        "--headless",
        "--hide-scrollbars",
        "--disable-gpu",
        "--no-first-run",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    options += ["--no-sandbox"] * (os.geteuid() == 0)  # Chromium's needs another user than root
    ran = subprocess.run([str(CHROMIUM), *options, path.as_uri()], capture_output=True, text=True, timeout=240)
    (findings,) = re.findall(r'<pre id="findings">(.+?)</pre>', ran.stdout, re.DOTALL) or [""]
    assert findings, ran.stderr[-2000:]
    read: dict[str, Any] = json.loads(html.unescape(findings))
    return read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


def test_nothing_is_fetched_and_no_script_runs(page: str, folder: Path) -> None:
    findings = looked_at(page, folder, DESK, dark=False)
    assert findings["fetched"] == []
    assert findings["scripts"] == 0


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_hangs_over_the_page(page: str, folder: Path, width: int) -> None:
    findings = looked_at(page, folder, width, dark=False)
    assert findings["width"] == width
    assert findings["hanging_over"] == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out(page: str, folder: Path, dark: bool) -> None:
    findings = looked_at(page, folder, DESK, dark=dark)
    assert findings["texts"] > 500
    assert findings["paper"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert [text for text in findings["faint"] if text["contrast"] < 4.5] == []


def test_every_picture_says_what_it_shows(page: str, folder: Path) -> None:
    findings = looked_at(page, folder, DESK, dark=False)
    assert findings["pictures"] > 12
    assert findings["unnamed"] == []


def test_all_that_can_be_worked_is_reached_by_tab(page: str, folder: Path) -> None:
    findings = looked_at(page, folder, PHONE, dark=False)
    assert findings["interactive"] > 5
    assert findings["unreachable"] == []


def test_what_is_wrong_with_a_page_is_found(page: str, folder: Path) -> None:
    wrong = """<div style="width: 2000px">wide</div><p style="color: var(--grid)">faint</p>
        <svg width="9" height="9"></svg><img src="http://127.0.0.1:9/x.png" alt="">
        <span role="button" onclick="">pressed</span></main>"""
    open_to_all = page.replace("img-src data:", "img-src *").replace("</main>", wrong)
    findings = looked_at(open_to_all, folder, DESK, dark=False)
    assert len(findings["hanging_over"]) == 1
    assert [text["text"] for text in findings["faint"] if text["contrast"] < 4.5] == ["faint"]
    assert (len(findings["unnamed"]), len(findings["unreachable"])) == (2, 1)
    assert findings["fetched"] == ["http://127.0.0.1:9/x.png"]
