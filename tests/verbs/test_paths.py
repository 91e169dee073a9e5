"""What is no file, or no folder, where one is wanted is an InputError that says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

import hwnas
from hwnas.errors import InputError

BENCH = {"choices": "c", "accuracy": "a", "caps": 1, "latency": "ms"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hwnas.bench(table=".", out="b", **BENCH), "--table must be a file, and no folder; got '.'"),
        (lambda: hwnas.bench(table="file", out="file", **BENCH), "--out must be a folder, .* got 'file'"),
        (lambda: hwnas.search(out="file", max_latency_ms=1), "--out must be a folder, .* got 'file'"),
        (lambda: hwnas.export("run", out="file"), "--out must be a folder, .* got 'file'"),
        (lambda: hwnas.report("run", export_folder="file"), "--export-folder must be a folder, .* got 'file'"),
        (lambda: hwnas.train("file"), "file must be a run's folder"),
        (lambda: hwnas.verify("file"), r"an artefact's card must .*; got file/card.json"),
        (lambda: hwnas.describe("folder.json"), "folder.json/card.json, which does not"),
        (lambda: hwnas.describe("mobilenet-v2", picture="folder.svg"), "--picture must be a file, and no folder"),
        (lambda: hwnas.run("."), "config must be a file, and no folder; got '.'"),
        (lambda: hwnas.tables_merge("a", "b", out="."), "--out must be a file, and no folder; got '.'"),
    ],
)
def test_a_file_for_a_folder_and_a_folder_for_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("content")
    for name in ("folder.json", "folder.svg"):
        Path(name).mkdir()
    with pytest.raises(InputError, match=message):
        call()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.json", "folder.svg"}
