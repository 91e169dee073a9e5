"""A disk that is full, for every verb: said in words, and no temporary file is left."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.errors import InputError
from hwnas.support.files import write_text

BEFORE = Path(__file__).parent.parent / "data" / "before"
BENCH = "--table table.csv --choices a,b --accuracy seen,truth --latency ms --caps 3.5 --strategies random --seeds 1"
SEARCH = (
    "--max-latency-ms 0.15 --data npz:images.npz --cells 1 --filters 4 --strategy random --estimator size --trials 1"
)
TRAIN = "--no-augment --batch-size 16 --accelerator cpu --precision fp32"
RUN = """\
import resource, sys
from hwnas.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
main()
"""


@pytest.mark.parametrize(
    ("command", "most_bytes"),
    [
        ("report runs/a", 0),
        ("report runs/a", 50_000),  # which the journal has room in
        (f"bench {BENCH} --evaluations 5 --jobs 1 --out new", 0),
        (f"bench {BENCH} --evaluations 5 --jobs 1 --out new", 2000),
        ("tables merge latency_tables/host/tflite-fp32-1t.json same.json --out merged.json", 0),
        ("describe cell.toml --picture picture.svg", 0),
        ("describe cell.toml --picture picture.png", 1000),
        ("devices add other --transport local --setting tflite-fp32-1t", 0),
        (f"search {SEARCH} --trials 1 --predicted --out runs/new", 0),
        (f"search {SEARCH} --trials 1 --predicted --out runs/new", 3000),
        (f"train runs/a --trial 3 --epochs 10 {TRAIN}", 0),
        (f"train runs/a --trial 3 --epochs 10 {TRAIN}", 43_000),  # the journal, and no checkpoint
        ("export runs/a --trial 0 --out new", 20_000),
        ("profile host --setting tflite-fp32-1t --cells 1 --filters 4 --resolution 12 --classes 3 --networks 0", 0),
        ("verify export/a/0000", 0),
    ],
)
def test_a_full_disk_is_said_in_words(command: str, most_bytes: int, tmp_path: Path) -> None:
    place = tmp_path / "before"
    shutil.copytree(BEFORE, place)
    shutil.copy(place / "latency_tables/host/tflite-fp32-1t.json", place / "same.json")
    arguments = [sys.executable, "-c", RUN, str(most_bytes), *command.split()]
    done = subprocess.run(arguments, cwd=place, capture_output=True, text=True)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("hwnas: ")
    assert not list(place.rglob("*.tmp"))
    assert not list(place.rglob(".*.part"))


def full(number: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_systems_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"):
        write_text(tmp_path / "a.txt", "a")
    assert not list(tmp_path.iterdir())


def test_python_is_told_in_words_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hwnas

    shutil.copy(BEFORE / "cell.toml", tmp_path / "cell.toml")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"the system refused a file: .*No space left on device\. Make room"):
        hwnas.describe(str(tmp_path / "cell.toml"), picture=str(tmp_path / "a.svg"))
