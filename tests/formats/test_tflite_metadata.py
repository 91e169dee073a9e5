"""TFLite Metadata: what the standard tools read of a file, and that the file runs as before."""

import io
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from networks import images

from hwnas.errors import ExportError
from hwnas.formats import made_up_ranges, random_weights, tflite
from hwnas.network.graph import Builder, Graph

GREY = {"hwnas_trial": "12", "classes": "cat,dög,a b", "mean": "0.5", "std": "0.25"}
COLOURS = {**GREY, "mean": "0.5,0.4,0.3", "std": "0.2,0.25,0.125"}


class Table:
    """A table of a flatbuffer, read by its fields' numbers."""

    def __init__(self, data: bytes, position: int) -> None:
        self._table = flatbuffers.table.Table(data, position)

    @classmethod
    def root(cls, data: bytes) -> "Table":
        return cls(data, int(flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, data, 0)))

    def _at(self, field: int) -> int:
        offset = self._table.Offset(4 + 2 * field)
        assert offset, f"field {field} is not there"
        return int(offset)

    def has(self, field: int) -> bool:
        return bool(self._table.Offset(4 + 2 * field))

    def text(self, field: int) -> str:
        return str(self._table.String(self._at(field) + self._table.Pos).decode())

    def byte(self, field: int) -> int:
        offset = self._table.Offset(4 + 2 * field)
        return int(self._table.Get(number_types.Uint8Flags, offset + self._table.Pos)) if offset else 0

    def number(self, field: int) -> float:
        return float(self._table.Get(number_types.Float32Flags, self._at(field) + self._table.Pos))

    def numbers(self, field: int) -> Any:
        return self._table.GetVectorAsNumpy(number_types.Float32Flags, self._at(field))

    def table(self, field: int) -> "Table":
        return Table(self._table.Bytes, self._table.Indirect(self._at(field) + self._table.Pos))

    def tables(self, field: int) -> list["Table"]:
        at = self._at(field)
        start = self._table.Vector(at)
        places = [start + 4 * index for index in range(self._table.VectorLen(at))]
        return [Table(self._table.Bytes, self._table.Indirect(place)) for place in places]


def network(channels: int) -> Graph:
    b = Builder((channels, 6, 6))
    value = b.window("conv", 0, name="conv", filters=8, kernel=(3, 3), norm=True)
    return b.finish(b.linear(b.mean(value, name="mean"), 3, name="classifier"))


def written(metadata: dict[str, str], *, channels: int = 1, **how: Any) -> bytes:
    graph = network(channels)
    return tflite.write(graph, random_weights(graph), metadata=metadata, **how)


def entries(data: bytes) -> dict[str, bytes]:
    model = schema.ModelT.InitFromPackedBuf(data)
    return {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}


def described(data: bytes) -> tuple[Table, Table]:
    """Return what the metadata says of the input and of the output."""
    found = entries(data)["TFLITE_METADATA"]
    assert found[4:8] == b"M001"
    root = Table.root(found)
    assert root.text(7) == "1.0.0"
    (graph,) = root.tables(3)
    (source,), (target,) = graph.tables(2), graph.tables(3)
    return source, target


def files(data: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.mark.parametrize(("metadata", "channels", "color_space"), [(GREY, 1, 2), (COLOURS, 3, 1)])
def test_the_input_is_an_image_of_pixels_from_0_to_255(
    metadata: dict[str, str], channels: int, color_space: int
) -> None:
    source, _ = described(written(metadata, channels=channels))
    mean, std = (np.array(metadata[name].split(","), dtype=float) for name in ("mean", "std"))
    content = source.table(3)
    (unit,) = source.tables(4)
    assert source.text(0) == "images"
    assert (content.byte(0), content.table(1).byte(0)) == (2, color_space)
    assert unit.byte(0) == 1
    np.testing.assert_allclose(unit.table(1).numbers(0), 255 * mean, rtol=1e-6)
    np.testing.assert_allclose(unit.table(1).numbers(1), 255 * std, rtol=1e-6)
    np.testing.assert_allclose(source.table(5).numbers(0), (1 - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(source.table(5).numbers(1), -mean / std, rtol=1e-6)


def test_the_labels_are_a_file_behind_the_model() -> None:
    data = written(GREY)
    _, target = described(data)
    (file,) = target.tables(6)
    assert target.text(0) == "logits"
    assert target.table(3).byte(0) == 1
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)
    assert files(data) == {"labels.txt": "cat\ndög\na b"}


def test_scores_below_0_are_not_dropped() -> None:
    _, target = described(written(GREY))
    (unit,) = target.tables(4)
    assert unit.byte(0) == 3
    assert unit.table(1).number(0) == np.finfo(np.float32).min


def test_our_own_entries_stay() -> None:
    found = entries(written(GREY))
    assert {name: found[name].decode() for name in GREY} == GREY


@pytest.mark.parametrize("how", [{}, {"precision": "fp16"}, {"precision": "dynamic"}, {"ranges": ...}], ids=str)
def test_the_file_computes_what_it_does_without(tmp_path: Path, how: dict[str, Any]) -> None:
    graph = network(1)
    if "ranges" in how:
        how = {"ranges": made_up_ranges(graph)}
    outputs = []
    for name, metadata in (("bare", {}), ("described", GREY)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(written(metadata, **how))
        outputs.append(tflite.load(path)(images(graph)))
        assert zipfile.is_zipfile(path) == bool(metadata)
    np.testing.assert_array_equal(*outputs)


def test_the_same_file_is_written_again() -> None:
    assert written(GREY) == written(GREY)


def test_a_name_with_a_comma_is_in_quotes() -> None:
    assert files(written({**GREY, "classes": 'cat,"dog, large",bird'})) == {"labels.txt": "cat\ndog, large\nbird"}


def test_a_name_is_on_one_line() -> None:
    assert files(written({**GREY, "classes": "cat,dog\nlarge,bird"})) == {"labels.txt": "cat\ndog large\nbird"}


def test_labels_that_do_not_fit_the_outputs_are_left_out() -> None:
    data = written({**GREY, "classes": "cat,dog"})
    source, target = described(data)
    assert source.has(4)
    assert not target.has(6)
    assert not zipfile.is_zipfile(io.BytesIO(data))


@pytest.mark.parametrize("missing", ["classes", "mean", "std"])
def test_without_all_three_nothing_is_said(missing: str) -> None:
    metadata = {name: text for name, text in GREY.items() if name != missing}
    data = written(metadata)
    assert entries(data).keys() == metadata.keys()
    assert not zipfile.is_zipfile(io.BytesIO(data))


@pytest.mark.parametrize(("name", "text"), [("mean", "0.5,0.4"), ("std", "wide"), ("mean", ""), ("std", "nan")])
def test_a_normalisation_that_does_not_fit_the_input_is_refused(name: str, text: str) -> None:
    with pytest.raises(ExportError, match=f"{name} must be a number for each channel of the input, 1 in all.*'{text}'"):
        written({**GREY, name: text})


def test_a_std_of_0_is_refused() -> None:
    with pytest.raises(ExportError, match="std must be above 0; got '0'"):
        written({**GREY, "std": "0"})
