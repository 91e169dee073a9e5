"""TFLite Metadata: what Android's and MediaPipe's tools read of a .tflite file, and the labels that lie behind it.

The flatbuffer `TFLITE_METADATA` says how pixels of 0 to 255 become the input, and in which file the labels are: one in
a zip archive appended to the model, as by the TFLite Support library. The tables are those of version 1.0.0 of
tflite-support's metadata_schema.fbs.
"""

import csv
import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import flatbuffers
import numpy as np

from hwnas.errors import ExportError, short
from hwnas.network import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Channels = NDArray[np.float64]

NAME = "TFLITE_METADATA"  # of the entry in the model's own table
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
_VERSION = "1.0.0"  # of the schema: the first one has all that is used here
_FIELDS = {  # of each table: the numbers of the fields that are used here
    "ModelMetadata": {"name": 0, "description": 1, "subgraph_metadata": 3, "min_parser_version": 7},
    "SubGraphMetadata": {"input_tensor_metadata": 2, "output_tensor_metadata": 3},
    "TensorMetadata": {
        "name": 0,
        "description": 1,
        "content": 3,
        "process_units": 4,
        "stats": 5,
        "associated_files": 6,
    },
    "Content": {"properties_type": 0, "properties": 1},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": 0},
    "ProcessUnit": {"options_type": 0, "options": 1},
    "NormalizationOptions": {"mean": 0, "std": 1},
    "ScoreThresholdingOptions": {"global_score_threshold": 0},
    "Stats": {"max": 0, "min": 1},
    "AssociatedFile": {"name": 0, "description": 1, "type": 2},
}
_FEATURES, _IMAGE = 1, 2  # a Content's type
_NORMALIZATION, _THRESHOLD = 1, 3  # a ProcessUnit's type
_AXIS_LABELS = 2  # an AssociatedFile's type
_COLOR_SPACES = {1: 2, 3: 1}  # by channels: grey and RGB; 0 stands for others
_WHITE = 255.0
_NORMALISED = "One image: each channel's pixels, from 0 to 255, less its mean and divided by its std."
_OTHERS = {
    "pixels": "One image: pixels from 0 to 255, divided by 255.",
    "uint8": "One image: pixels from 0 to 255, as they are.",
}
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that a file is the same whenever it is written


class _Table(NamedTuple):
    name: str
    fields: dict[str, Any]  # strings, small whole numbers, floats, tables, lists of tables, arrays


def of_images(graph: Graph, metadata: Mapping[str, str]) -> bytes | None:
    """Return the flatbuffer, or nothing unless `metadata` has classes, mean and std and the graph has one input.

    Raises ExportError unless mean and std are numbers for each channel of the input, and std above 0.
    """
    inputs = [layer for layer in graph.layers if layer.kind == "input"]
    if not {"classes", "mean", "std"} <= metadata.keys() or len(inputs) != 1:
        return None
    channels = inputs[0].shape[0]
    mean, std = (_numbers(name, metadata[name], channels) for name in ("mean", "std"))
    if not (std > 0).all():
        raise ExportError(f"std must be above 0; got {metadata['std']!r}. Take it from the data set")
    builder = flatbuffers.Builder(1024)
    root = _model(
        _images(channels, mean, std, metadata.get("input", "normalised")),
        _logits(labelled=labels(graph, metadata) is not None),
    )
    builder.Finish(_add(builder, root), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def labels(graph: Graph, metadata: Mapping[str, str]) -> str | None:
    """Return the classes' names, a line each, or nothing if they are not as many as the outputs.

    They are read as a line of CSV: a name that holds a comma is in double quotes.
    """
    line = " ".join(metadata.get("classes", "").splitlines())
    names = next(csv.reader([line]))
    return "\n".join(names) if len(names) == graph.layers[-1].shape[0] else None


def with_file(model: bytes, name: str, text: str) -> bytes:
    """Return a model with a zip archive of a text file behind it."""
    whole = io.BytesIO()
    whole.write(model)
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), text)
    return whole.getvalue()


def _numbers(name: str, text: str, channels: int) -> "Channels":
    try:
        numbers = np.array([float(number) for number in text.split(",")])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != channels or not np.isfinite(numbers).all():
        raise ExportError(
            f"{name} must be a number for each channel of the input, {channels} in all, with commas between them; "
            f"got {short(text)}. Take it from the data set"
        )
    return numbers


def _model(images: _Table, logits: _Table) -> _Table:
    network = _Table("SubGraphMetadata", {"input_tensor_metadata": [images], "output_tensor_metadata": [logits]})
    about = {"name": "image classifier", "description": "Found, trained and written by hwnas."}
    return _Table("ModelMetadata", {**about, "subgraph_metadata": [network], "min_parser_version": _VERSION})


def _images(channels: int, mean: "Channels", std: "Channels", read: str) -> _Table:
    """Return what is said of the input; mean and std are those of pixels scaled to 0..1.

    A reader applies them, then the input's scale and zero point if it has some: for uint8 that gives the pixels again.
    """
    scaling = _Table("NormalizationOptions", {"mean": mean * _WHITE, "std": std * _WHITE})
    return _Table(
        "TensorMetadata",
        {
            "name": "images",
            "description": _OTHERS.get(read, _NORMALISED),
            "content": _content(_IMAGE, "ImageProperties", {"color_space": _COLOR_SPACES.get(channels, 0)}),
            "process_units": [_Table("ProcessUnit", {"options_type": _NORMALIZATION, "options": scaling})],
            "stats": _Table("Stats", {"max": (1 - mean) / std, "min": -mean / std}),
        },
    )


def _logits(*, labelled: bool) -> _Table:
    # without a threshold the Task library drops scores below 0
    lowest = _Table("ScoreThresholdingOptions", {"global_score_threshold": float(np.finfo(np.float32).min)})
    fields = {
        "name": "logits",
        "description": "The score of each class; a softmax makes them probabilities.",
        "content": _content(_FEATURES, "FeatureProperties", {}),
        "process_units": [_Table("ProcessUnit", {"options_type": _THRESHOLD, "options": lowest})],
    }
    if labelled:
        file = {"name": LABELS, "description": "The classes' names, in the order of the scores.", "type": _AXIS_LABELS}
        return _Table("TensorMetadata", {**fields, "associated_files": [_Table("AssociatedFile", file)]})
    return _Table("TensorMetadata", fields)


def _content(kind: int, name: str, fields: dict[str, Any]) -> _Table:
    return _Table("Content", {"properties_type": kind, "properties": _Table(name, fields)})


def _add(builder: Any, value: Any) -> int:
    """Add a table, a list of tables, an array or a string, and what belongs to it; return its offset."""
    offset: int
    if isinstance(value, str):
        offset = builder.CreateString(value)
    elif isinstance(value, np.ndarray):
        offset = builder.CreateNumpyVector(value.astype(np.float32))
    elif isinstance(value, _Table):
        offset = _add_table(builder, value)
    else:
        entries = [_add(builder, entry) for entry in value]
        builder.StartVector(4, len(entries), 4)
        for entry in reversed(entries):
            builder.PrependUOffsetTRelative(entry)
        offset = builder.EndVector()
    return offset


def _add_table(builder: Any, table: _Table) -> int:
    numbers = _FIELDS[table.name]
    scalar = {int: builder.PrependUint8Slot, float: builder.PrependFloat32Slot}
    parts = {name: value if type(value) in scalar else _add(builder, value) for name, value in table.fields.items()}
    builder.StartObject(max(numbers.values(), default=-1) + 1)
    for name, value in parts.items():
        prepend = scalar.get(type(table.fields[name]), builder.PrependUOffsetTRelativeSlot)
        prepend(numbers[name], value, 0)
    offset: int = builder.EndObject()
    return offset
