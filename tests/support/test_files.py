"""Files of other people: whatever stands in them, or in their place, is bounded, and refused in words."""

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.errors import DataError, InputError, TableError
from hwnas.latency.table import LatencyTable
from hwnas.support.arrays import read_array
from hwnas.support.files import read_json, read_toml

DEEP = 100_000


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("place", ["pipe", "device", "folder", "nothing"])
def test_what_is_no_file_is_not_opened_wherever_a_file_is_read(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    match place:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    words = {"nothing": "must exist; got .*, which does not", "folder": "it is a folder"}
    expected = words.get(place, "it is a pipe or a device")
    for read in (read_json, read_toml):
        with pytest.raises(InputError, match=expected):
            read(path, what="a file")
    with pytest.raises(TableError, match=expected):
        LatencyTable.read(path)
    for suffix in (".toml", ".json"):
        named = path.with_suffix(suffix)
        named.symlink_to(path)
        with pytest.raises(InputError):
            hwnas.describe(str(named))
    with pytest.raises(InputError):
        hwnas.run(str(path))
    with pytest.raises(InputError):
        hwnas.bench(table=path, choices="a", accuracy="b", latency="c", caps=1, out=tmp_path / "out")


@pytest.mark.parametrize("text", ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * 65 + "]" * 65])
def test_json_that_is_nested_too_deep_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be JSON; .* nested (too|more than 64) deep"):
        read_json(written(tmp_path / "a.json", text), what="a record")
    assert read_json(written(tmp_path / "a.json", "[" * 64 + "]" * 64), what="a record")


@pytest.mark.parametrize("depth", [65, 100_000])
def test_toml_that_is_nested_too_deep_is_refused(depth: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be TOML; .* nested (too|more than 64) deep"):
        read_toml(written(tmp_path / "a.toml", "a = " + "[" * depth + "]" * depth), what="a file")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with path.open("wb") as file:
        file.truncate(2**40)  # of which the disk has nothing
    with pytest.raises(InputError, match=r"a file must have at most 1 MiB; .*a\.toml has 1048576\.0 MiB"):
        read_toml(path, what="a file")
    with pytest.raises(InputError, match="a record must have at most 16 MiB"):
        read_json(path, what="a record")
    with pytest.raises(TableError, match="a latency table must have at most 256 MiB"):
        LatencyTable.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        (r'{"a": "\ud800"}', "surrogates not allowed"),
        ("1" * 5000, "limit"),
        ("{", "Expecting property name"),
        (b"\xff\xfe{", "invalid start byte"),
    ],
)
def test_json_that_cannot_be_taken_at_its_word_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"a record must be JSON; .*{message}"):
        read_json(written(tmp_path / "a.json", text), what="a record")


def test_a_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    assert read_json(written(tmp_path / "a.json", r'"\ud83d\ude00"'), what="a record") == "\N{GRINNING FACE}"


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path) -> None:
    assert read_toml(written(tmp_path / "a.toml", "\ufeffout = 1"), what="a file") == {"out": 1}
    assert read_json(written(tmp_path / "a.json", "\ufeff[1]"), what="a record") == [1]


def test_a_header_that_asks_for_64_tib_takes_no_memory(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (70368744177664,), }\n"
    with zipfile.ZipFile(tmp_path / "images.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    with pytest.raises(ValueError, match=r"its header says \[70368744177664\] of uint8, .* bytes; it has 64"):
        read_array(tmp_path / "images.npz", "x")


def test_arrays_of_pythons_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Python's objects"):
        read_array(tmp_path / "a.npz", "x")


def test_an_array_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    arrays = {
        "rows": np.arange(12, dtype=np.int16).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "names": np.array(["a", "Größe"]),
        "one": np.array(3.5),
        "none": np.zeros((0, 3), np.uint8),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        for name, array in arrays.items():
            read = read_array(tmp_path / "a.npz", name)
            assert read.dtype == array.dtype
            assert np.array_equal(read, array)
            assert read.flags.writeable


def test_an_array_that_is_larger_than_it_may_be_is_not_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(10**7, np.uint8))
    with pytest.raises(ValueError, match="it has 10,000,128 bytes, and may have 1,000"):
        read_array(tmp_path / "a.npz", "x", most_bytes=1000)


def test_data_of_another_persons_archive_are_refused_in_words(tmp_path: Path) -> None:
    from hwnas import datasets

    path = written(tmp_path / "a.npz", b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"a\.npz must be a NumPy archive .*; write it by"):
        datasets.load(f"npz:{path}")


def test_a_long_value_is_quoted_in_part(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps({"kind": "x" * 100_000}))
    with pytest.raises(InputError) as caught:
        hwnas.describe(str(path))
    assert len(str(caught.value)) < 1000
