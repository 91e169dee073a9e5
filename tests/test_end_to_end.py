"""The main path as a user types it, on the real device at hand: each verb is killed in the middle and typed again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_images

from hwnas.latency.table import LatencyTable
from hwnas.runs.run import Run

HWNAS = [sys.executable, "-m", "hwnas.cli"]
SPACE = ["--space", "pnas", "--cells", "1", "--filters", "4"]
TABLE = Path("latency_tables/host/tflite-fp32-1t.json")
RUN = Path("runs/a")
PROFILE = ["profile", "host", "--setting", "tflite-fp32-1t", "--networks", "8", "--validate", "4", "--resolution", "8"]
PROFILE += ["--classes", "3", *SPACE]
SEARCH = ["search", "--out", str(RUN), "--max-latency-ms", "5", "--data", "npz:images.npz", "--images", "400"]
SEARCH += ["--trials", "4", "--epochs", "2", "--strategy", "progressive", "--estimator", "training", *SPACE]
BESIDE = {"README.md", "card.json", "check.npz", "run.py"}  # an artefact's model files
TRAIN = ["train", str(RUN), "--winners", "1", "--epochs", "8", "--batch-size", "16"]

MOBILE = """
out = "runs/mobile"
[device]
setting = "tflite-fp32-1t"
[search]
space = "mbconv"
strategy = "random"
max_latency_ms = 20
data = "npz:images.npz"
cells = [1]
filters = [4]
resolution = [8]
trials = 2
images = 64
epochs = 1
[profile]
networks = 4
[train]
winners = 1
epochs = 1
batch_size = 32
"""

pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}


def hwnas(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*HWNAS, *arguments], capture_output=True, text=True, env=environment(), timeout=250)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def kill_when(condition: Callable[[], Any], *arguments: str) -> None:
    """Start hwnas, kill -9 it and all that it started as soon as the condition holds."""
    process = subprocess.Popen(
        [*HWNAS, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    try:
        while not condition():
            assert process.poll() is None, "hwnas ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images in which every verb was killed once, and then run to its end."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(folder)
    write_images(folder / "images.npz", train=600, test=90)
    yield folder
    os.chdir(before)


def entries() -> dict[str, Any]:
    return LatencyTable.read(TABLE).entries if TABLE.exists() else {}


def test_a_killed_profile_measures_only_what_is_missing(workplace: Path) -> None:
    kill_when(lambda: len(entries()) >= 64, *PROFILE)
    kept = entries()
    hwnas(*PROFILE)
    after = entries()
    assert len(after) > len(kept)
    for name, measurement in kept.items():
        assert after[name].rounds_ms[: len(measurement.rounds_ms)] == measurement.rounds_ms
    assert all(len(measurement.rounds_ms) >= 6 for measurement in after.values())
    (again,) = json.loads(hwnas(*PROFILE, "--json").stdout)
    assert again["measured_now"] == 0
    assert entries() == after


def test_ctrl_c_loses_nothing_and_says_how_to_go_on(workplace: Path) -> None:
    process = subprocess.Popen(
        [*HWNAS, *SEARCH], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    )
    journal = RUN / "journal.log"
    deadline = time.monotonic() + 200
    while not (journal.exists() and journal.read_text().count("measured_ms")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; type the same command again to go on" in stderr
    assert "Traceback" not in stderr


def trained() -> list[Any]:
    return Run.open(RUN).candidates() if (RUN / "settings.json").exists() else []


def test_a_killed_search_keeps_its_trials_and_goes_on(workplace: Path) -> None:
    def second_is_trained() -> bool:
        path = RUN / "journal.log"
        return path.exists() and path.read_text().count('"state":1') >= 2

    kill_when(second_is_trained, *SEARCH)
    kept = trained()
    assert len(kept) >= 2
    hwnas(*SEARCH)
    after = trained()
    assert len(after) == 4
    assert after[: len(kept)] == kept
    assert all(candidate.measured and candidate.latency_ms <= 5 for candidate in after)


def test_a_killed_training_goes_on_from_its_last_epoch(workplace: Path) -> None:
    kill_when(lambda: list(RUN.glob("winners/*/checkpoint.safetensors")), *TRAIN)
    assert not list(RUN.glob("winners/*/winner.json"))
    (winner,) = json.loads(hwnas(*TRAIN, "--json").stdout)
    assert winner["test_accuracy"] > 0.5
    (record,) = [json.loads(path.read_text()) for path in RUN.glob("winners/*/winner.json")]
    assert record["images_seen"] == 8 * 600  # no epoch twice
    (again,) = json.loads(hwnas(*TRAIN, "--json").stdout)
    assert again == winner


def test_a_killed_export_leaves_nothing_half_written_and_is_finished_later(workplace: Path) -> None:
    kill_when(lambda: list(Path("export/a").glob(".*.part/*")), "export", str(RUN))
    assert not list(Path("export/a").glob("[0-9]*"))
    (exported,) = json.loads(hwnas("export", str(RUN), "--json").stdout)
    folder, card = Path(exported["folder"]), exported["card"]
    assert {path.name for path in folder.iterdir()} == {*BESIDE, *card["files"]}
    assert set(card["files"]) == {"model.onnx", "model.tflite", "model.int8.tflite"}
    for name, file in card["files"].items():
        int8 = name == "model.int8.tflite"
        assert file["max_relative_error"] < (0.1 if int8 else 1e-5)
        assert file["agreement"] >= (0.9 if int8 else 1.0)
        assert file["setting"] == f"{file['runtime']}-{file['precision']}-1t"
        assert 0 < file["measured_ms"] < 5
    in_int8 = card["files"]["model.int8.tflite"]
    assert (in_int8["test_images"], in_int8["calibration"]["images"]) == (90, 100)
    assert abs(in_int8["accuracy"] - card["accuracy"]["test"]) <= 0.05
    assert "Interpreter(" in (folder / "README.md").read_text()
    assert json.loads(hwnas("export", str(RUN), "--json").stdout) == [exported]
    assert not list(folder.parent.glob(".*"))


def test_the_readmes_code_runs_the_exported_file(workplace: Path) -> None:
    from PIL import Image

    (folder,) = Path("export/a").glob("[0-9]*")
    reading, *running = [part.split("```")[0] for part in (folder / "README.md").read_text().split("```python\n")[1:]]
    Image.fromarray(np.full((8, 8), 150, dtype=np.uint8)).save(folder / "image.png")
    found = [
        subprocess.run([sys.executable, "-c", reading + code], cwd=folder, capture_output=True, text=True, check=True)
        for code in running
    ]
    tflite, int8, onnx = (done.stdout.strip() for done in found)
    assert {tflite, int8, onnx} <= {"0", "1", "2"}
    assert tflite == onnx


def test_only_the_files_that_are_asked_for_are_exported(workplace: Path) -> None:
    (exported,) = json.loads(hwnas("export", str(RUN), "--out", "one", "--files", "model.onnx", "--json").stdout)
    assert set(exported["card"]["files"]) == {"model.onnx"}
    assert {path.name for path in Path(exported["folder"]).iterdir()} == {*BESIDE, "model.onnx"}
    (again,) = json.loads(hwnas("export", str(RUN), "--out", "one", "--json").stdout)
    assert set(again["card"]["files"]) == {"model.onnx", "model.tflite", "model.int8.tflite"}
    refused = hwnas("export", str(RUN), "--files", "model.pb", status=2)
    assert "model.tflite, model.onnx, model.int8.tflite" in " ".join(refused.stderr.split())


def test_an_artefact_over_its_cap_is_refused_unless_that_is_allowed(workplace: Path) -> None:
    settings = json.loads((RUN / "settings.json").read_text())
    (RUN / "settings.json").write_text(json.dumps({**settings, "max_latency_ms": 1e-4}))
    refused = hwnas("export", str(RUN), "--out", "other", status=1)
    assert "must run in 0.0001 ms on host" in refused.stderr
    assert "--allow-over-cap" in refused.stderr
    assert not list(Path("other").rglob("model*"))
    said = hwnas("export", str(RUN), "--out", "other", "--allow-over-cap").stdout
    int8 = json.loads(next(Path("other").rglob("card.json")).read_text())["files"]["model.int8.tflite"]
    shown = f"; accuracy (exported file) {int8['accuracy']:.2%}, {int8['agreement']:.1%} of PyTorch's classes"
    assert shown in " ".join(said.split())
    assert len(list(Path("other").rglob("model*"))) == 3
    (RUN / "settings.json").write_text(json.dumps(settings))


def test_a_killed_report_is_written_the_next_time(workplace: Path) -> None:
    kill_when(lambda: list(RUN.glob("*front.*")), "report", str(RUN))
    reported = json.loads(hwnas("report", str(RUN), "--json").stdout)
    assert all(Path(path).stat().st_size > 1000 for path in reported.values())


def test_one_file_runs_all_of_it_and_does_nothing_twice(workplace: Path) -> None:
    started = time.time()
    Path("all.toml").write_text(
        """
        out = "runs/a"
        [device]
        setting = "tflite-fp32-1t"
        [profile]
        networks = 8
        [search]
        space = "pnas"
        strategy = "progressive"
        estimator = "training"
        max_latency_ms = 5.0
        data = "npz:images.npz"
        images = 400
        trials = 4
        epochs = 2
        cells = [1]
        filters = [4]
        [train]
        winners = 1
        epochs = 8
        batch_size = 16
        """
    )
    trials = trained()
    kill_when(lambda: (RUN / ".lock").stat().st_mtime > started, "run", "all.toml")
    ran = json.loads(hwnas("run", "all.toml", "--json").stdout)
    assert ran["searched"]["trained"] == 4
    assert ran["profiled"][0]["measured_now"] == 0
    assert trained() == trials


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "out ="),
        ('out = "runs/b"\n[serch]\n', "may have the sections device, profile, search, train, export; got 'serch'"),
        ('out = "runs/b"\n[search]\ntrails = 3\n', "[search] has no 'trails'; known:"),
        ('out = "runs/b"\n[search]\ntrials = 3\n', "must have max_latency_ms"),
        ('out = "runs/b"\n[export]\nweights = "random"\n', "[export] has no 'weights'; known: allow_over_cap"),
        ("out = [", "must be TOML"),
    ],
)
def test_a_config_that_is_wrong_says_where(workplace: Path, content: str, message: str) -> None:
    Path("wrong.toml").write_text(content)
    assert message in hwnas("run", "wrong.toml", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["profile", "magic"], 2, "unknown device 'magic'; known: arduino-nano-33-ble, arm64-qemu, ethos-u55-128, "),
        (["search", "--out", "runs/b", "--max-latency-ms", "-3"], 2, "--max-latency-ms must be above 0"),
        ([*SEARCH[:2], "runs/b", "--max-latency-ms", "1e-5", *SEARCH[5:]], 1, "nothing in the space fits the caps"),
        (["search", "--out", "runs/b", "--max-latency-ms", "1", "--data", "magic"], 2, "unknown data set 'magic'"),
        (["train", "runs/none"], 2, "runs/none must be a run's folder"),
        (["export", "runs/none"], 2, "runs/none must be a run's folder"),
        (["report", "runs/none"], 2, "runs/none must be a run's folder"),
        (["run", "none.toml"], 2, "none.toml, which does not"),
    ],
)
def test_no_traceback_reaches_the_user(workplace: Path, arguments: list[str], status: int, message: str) -> None:
    assert message in hwnas(*arguments, status=status).stderr


def test_a_broken_table_is_named(workplace: Path) -> None:
    content = TABLE.read_text()
    TABLE.write_text(content[: len(content) // 2])
    assert str(TABLE) in hwnas(*SEARCH, status=1).stderr
    TABLE.write_text(content)


def test_a_mobile_network_goes_all_the_way_from_one_file(workplace: Path) -> None:
    Path("mobile.toml").write_text(MOBILE)
    ran = json.loads(hwnas("run", "mobile.toml", "--json").stdout)
    (exported,) = ran["exported"]
    assert exported["card"]["architecture"]["kind"] == "chain"
    for file in exported["card"]["files"].values():
        assert file["max_relative_error"] <= (0.2 if file["precision"] == "int8" else 1e-5)
    assert Path(ran["reported"]["page"]).stat().st_size > 10_000
    described = json.loads(hwnas("describe", exported["folder"], "--picture", "mobile.svg", "--json").stdout)
    assert described["parameters"] == exported["card"]["parameters"]
    assert Path("mobile.svg").stat().st_size > 1000
