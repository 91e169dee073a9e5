"""The zoo: what is listed, how a network is copied out, and that those that hwnas ships are what they say."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner
from winners import trained_run

import hwnas
from hwnas.cli.main import app
from hwnas.device import device
from hwnas.errors import ExportError, InputError, UnknownNameError
from hwnas.verbs.run import RunOptions, make_plan

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "export" / "zoo"
SHIPPED = sorted(path.parent for path in ZOO.glob("*/card.json"))
CONFIGS = sorted(ZOO.glob("*.toml"))
NAME = "greys-0.5"
MOST_BYTES = 3 * 2**20  # of the whole zoo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which export/zoo has one network."""
    folder = tmp_path_factory.mktemp("made")
    run = trained_run(folder)
    (exported,) = hwnas.export(str(run), out=str(folder / "made"), files=("model.tflite",))
    shutil.copytree(exported.folder, folder / "home" / "export" / "zoo" / NAME)
    (folder / "home" / "export" / "zoo" / f"{NAME}.toml").write_text('out = "runs/greys"\n')
    return folder / "home"


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a zoo of one network, and hwnas ships devices alone."""
    shutil.copytree(made, tmp_path / "home")
    shutil.copytree(ROOT / "devices", tmp_path / "shipped" / "devices")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setattr(device, "_SHIPPED", (tmp_path / "shipped",))
    return tmp_path / "home"


def test_it_is_listed_with_its_card_and_the_file_that_makes_it_again(home: Path) -> None:
    (network,) = hwnas.zoo()
    assert (network.name, network.problem) == (NAME, "")
    assert network.card is not None
    assert network.card.accuracy.test is not None
    assert Path(network.config or "").read_text() == 'out = "runs/greys"\n'
    assert hwnas.zoo(NAME) == [network]
    shown = CliRunner().invoke(app, ["zoo"])
    assert shown.exit_code == 0
    assert f"{network.card.accuracy.test:.2%}" in shown.output
    (printed,) = json.loads(CliRunner().invoke(app, ["zoo", "--json"]).output)
    assert printed["card"]["files"].keys() == {"model.tflite"}


def test_a_copy_is_verified_and_described_as_any_artefact(home: Path) -> None:
    Path("export/zoo", NAME, "__pycache__").mkdir()  # as pip leaves it beside run.py
    (copied,) = hwnas.zoo(NAME, out="mine/net")
    names = {"card.json", "check.npz", "README.md", "run.py", "model.tflite", f"{NAME}.toml"}
    assert {path.name for path in Path("mine/net").iterdir()} == names
    assert Path(copied.folder) == Path("mine/net")
    assert Path(copied.config or "").name == f"{NAME}.toml"
    shutil.rmtree("export")
    assert all(file.fine for file in hwnas.verify("mine/net"))
    assert copied.card is not None
    assert hwnas.describe("mine/net").mult_adds == copied.card.mult_adds  # type: ignore[union-attr]


def test_the_same_copy_may_be_asked_for_again_and_nothing_else_is_overwritten(home: Path) -> None:
    hwnas.zoo(NAME, out="mine")
    before = Path("mine/card.json").stat().st_mtime_ns
    hwnas.zoo(NAME, out="mine")
    assert Path("mine/card.json").stat().st_mtime_ns == before
    Path("other").mkdir()
    Path("other/photo.png").touch()
    for folder in ("other", "mine"):
        Path(folder, "model.tflite").write_bytes(b"another")
        with pytest.raises(InputError, match="--out must be a new folder, or an empty one"):
            hwnas.zoo(NAME, out=folder)
    assert Path("other/photo.png").exists()
    assert not list(Path().glob(".*.part"))


def test_the_current_folder_is_not_replaced(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HWNAS_ROOT", str(home))
    with pytest.raises(InputError, match="got the current one"):
        hwnas.zoo(NAME, out=".")


def test_one_whose_files_were_changed_is_not_copied(home: Path) -> None:
    (home / "export" / "zoo" / NAME / "model.tflite").write_bytes(b"another")
    with pytest.raises(ExportError, match=r"must have the SHA-256 .*; model\.tflite was changed"):
        hwnas.zoo(NAME, out="mine")
    assert not Path("mine").exists()


def test_one_whose_card_cannot_be_read_is_listed_with_the_reason_and_status_1(home: Path) -> None:
    (home / "export" / "zoo" / NAME / "card.json").write_text("{")
    (network,) = hwnas.zoo()
    assert network.card is None
    assert "must be JSON" in network.problem
    assert CliRunner().invoke(app, ["zoo"]).exit_code == 1


def test_what_is_not_there_and_a_folder_for_all_are_refused(home: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown network of the zoo 'lion'; known: {NAME}"):
        hwnas.zoo("lion")
    with pytest.raises(InputError, match=r"--out is for one network, which must be named; got mine\. Type: hwnas zoo"):
        hwnas.zoo(out="mine")


def test_an_empty_zoo_says_how_networks_come_into_it(home: Path) -> None:
    shutil.rmtree("export")
    assert hwnas.zoo() == []
    shown = CliRunner().invoke(app, ["zoo"])
    assert shown.exit_code == 0
    assert "export/zoo/NAME, beside NAME.toml" in shown.output


# What is shipped.


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_file_is_one_that_run_takes_and_names_its_network(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(RunOptions(config=str(path)))
    assert Path(plan.search.out).name == path.stem
    assert path.stem.endswith(f"-{plan.search.space}-{plan.search.max_latency_ms:g}")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_each_network_is_what_its_file_asks_for_whole_and_in_git(folder: Path) -> None:
    (network,) = hwnas.zoo(folder.name)
    assert network.card is not None
    content = tomllib.loads(Path(network.config or "").read_text())
    search = content["search"]
    own = network.card.own_file
    assert own is not None
    assert own.measured_ms is not None
    assert own.measured_ms <= search["max_latency_ms"] == network.card.cap_ms
    assert network.card.mult_adds <= search["max_mult_adds"]
    assert network.card.timed_on
    assert set(network.card.files) == set(content["export"]["files"])
    kept = subprocess.run(["git", "ls-files", "."], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert set(kept.split()) == {"card.json", "check.npz", "README.md", "run.py", *network.card.files}
    assert all(file.fine for file in hwnas.verify(folder, device="host"))


def test_the_zoo_is_small() -> None:
    assert sum(path.stat().st_size for path in ZOO.rglob("*")) < MOST_BYTES
