"""ONNX: written with `onnx.helper` from the graph, and ONNX Runtime, which runs it.

Activations are NCHW; the batch is dynamic or fixed. BatchNorm comes folded into the weights. Padding is the operators'
own attribute, uneven where TensorFlow's SAME is. ReLU is a node of its own in the fp32 file; ONNX Runtime fuses it on
loading. An int8 file of a network reads float32 or bytes and writes float32, that of a layer by itself, which is timed,
uint8.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, checker, defs, helper

from hwnas.errors import ExportError
from hwnas.formats import (
    Memory,
    Model,
    Rewrite,
    batches,
    check_calibration,
    made_up_ranges,
    no_weights,
    not_written,
    range_of,
    unloadable,
)
from hwnas.formats._onnx_int8 import HIGHEST_WEIGHT as HIGHEST_WEIGHT
from hwnas.formats._onnx_int8 import SCALES, Int8Writer
from hwnas.formats._onnx_writer import Writer
from hwnas.formats._quantisation import Quantisation
from hwnas.network import Graph, fuse_relu

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession, SessionOptions

    from hwnas.formats import Array, Ranges, Weights

# on Linux the import of ONNX Runtime 1.29 and newer writes an identifier into the user's cache, and sends events
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

SUFFIX = ".onnx"
OPSET = 13  # ONNX 1.8, ONNX Runtime 1.6 and newer
LOWEST_OPSETS = {"fp32": 11, "int8": 13}  # Pad and Clip read their numbers as inputs; scales per channel
HIGHEST_OPSET = defs.onnx_opset_version()
FACTS = {precision: {"opset": OPSET, "input": "NCHW float32", "batch": "dynamic"} for precision in ("fp32", "int8")}
REWRITES: dict[str, Rewrite] = {}  # none that was tried is worth it: docs/log.md
_FUSES_RELU = frozenset({"conv", "linear"})  # what is left as one node in the model that ONNX Runtime has optimised
_AT_ONCE = 8  # images while calibrating


def lower(graph: Graph, *, without: Collection[str] = ()) -> Graph:
    """Return the layers that ONNX Runtime executes: a ReLU that alone reads a convolution or linear layer is fused."""
    return fuse_relu(graph, into=_FUSES_RELU)


def write(
    graph: Graph,
    weights: "Weights",
    *,
    metadata: Mapping[str, str] | None = None,
    ranges: "Ranges | None" = None,
    precision: str = "fp32",
    uint8_input: bool = False,
    without: Collection[str] = (),
    opset: int = OPSET,
    batch: int | None = None,
) -> bytes:
    """Return the .onnx file of a lowered graph; `weights` are in torch's layout.

    It is fp32; with `ranges`, which `calibrate` finds, int8. With `uint8_input` the input is uint8: in int8 0 and 255
    are the ends of its range, otherwise 0 and 1. `opset` is 11 at least (before it Pad and Clip read no inputs), in
    int8 13 (before it scales are not per channel), and at most what the installed onnx knows, which may be more than
    ONNX Runtime runs. The batch is dynamic without `batch`.
    Raises ExportError for a layer of unknown kind, for missing or wrong weights, missing ranges, and another precision,
    opset or batch.
    """
    if precision not in FACTS:
        raise not_written("onnx", precision, FACTS)
    if precision == "int8" and ranges is None:
        raise ExportError(
            "int8 takes ranges; got none. Take them from images: onnx.calibrate(lowered graph, weights, images)"
        )
    _check(opset, batch, "fp32" if ranges is None else "int8")
    if ranges is None:
        writer = Writer(graph, weights, uint8_input=uint8_input)
    else:
        writer = Int8Writer(graph, weights, ranges, uint8_input=uint8_input)
    writer.add_layers()
    model = writer.finish(metadata or {}, opset=opset, batch=batch)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def memory(
    graph: Graph, *, precision: str = "fp32", metadata: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> Memory:
    """Return the size of the file of a lowered graph, to the byte that of `write`; ONNX Runtime's arena is not known.

    The file is written, in memory: its weights are zeros.
    """
    ranges = made_up_ranges(graph) if precision == "int8" else None
    return Memory(len(write(graph, no_weights(graph), metadata=metadata, ranges=ranges, precision=precision)), None)


def arena_bytes(path: Path) -> None:
    """Return nothing: ONNX Runtime's arena is not known."""


def _check(opset: int, batch: int | None, precision: str) -> None:
    lowest = LOWEST_OPSETS[precision]
    if not lowest <= opset <= HIGHEST_OPSET:
        raise ExportError(
            f"the opset of an ONNX file in {precision} must be from {lowest} to {HIGHEST_OPSET}, the last that the "
            f"installed onnx knows; got {opset}. Leave it out for {OPSET}"
        )
    if batch is not None and batch < 1:
        raise ExportError(f"the batch of an ONNX file must be 1 or more; got {batch}. Leave it out for any number")


def calibrate(graph: Graph, weights: "Weights", images: "Array", *, share: float = 1.0) -> "Ranges":
    """Return the smallest and largest value of each layer of a lowered graph over images [n, c, h, w].

    With a `share` below 1 so much of each image's values is left out at either end. What runs is the fp32 file.
    Raises ExportError as `write` does, and for images that are none, of another shape, equal or not finite.
    """
    check_calibration(graph, images)
    import onnxruntime

    writer = Writer(graph, weights)
    writer.add_layers()
    model = writer.finish({}, opset=OPSET, batch=None)
    between = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in writer.values[1:-1]]
    model.graph.output.extend(between)
    session = onnxruntime.InferenceSession(model.SerializeToString(), _options(1), providers=["CPUExecutionProvider"])
    found = []  # [images, layers, 2]
    for start in range(0, len(images), _AT_ONCE):
        inputs = images[start : start + _AT_ONCE]
        values = [inputs, *session.run(writer.values[1:], {writer.values[0]: inputs})]
        found += [[range_of(value[at], share) for value in values] for at in range(len(inputs))]
    lowest, highest = np.min(found, axis=0)[:, 0], np.max(found, axis=0)[:, 1]
    return {layer.name: (float(lowest[at]), float(highest[at])) for at, layer in enumerate(graph.layers)}


def load(path: Path, *, threads: int = 1) -> Model:
    """Load a file; the function maps one NCHW float32 array per input to [n, classes], or NCHW if the output is 4-D.

    Raises ExportError if the file cannot be loaded.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), _options(threads), providers=["CPUExecutionProvider"])
    except _refusals() as error:
        raise unloadable(path, error) from None
    scales = _scales(session)
    (target,) = session.get_outputs()
    sources = [info.name for info in session.get_inputs()]

    batch = session.get_inputs()[0].shape[0]  # a word where it is dynamic

    def run(*inputs: "Array | NDArray[np.uint8]") -> "Array":
        outputs = []
        for values, count in batches(inputs, batch if isinstance(batch, int) else len(inputs[0])):
            named = zip(sources, values, strict=True)
            feed = {name: _in_uint8(value, scales[name]) if name in scales else value for name, value in named}
            (found,) = session.run(None, feed)
            outputs.append((_in_float32(found, scales[target.name]) if target.name in scales else found)[:count])
        output: Array = np.concatenate(outputs)
        return output

    return run


def _scales(session: "InferenceSession") -> dict[str, Quantisation]:
    """Return the scales of inputs and output, by name, of a file that reads and writes uint8."""
    told = session.get_modelmeta().custom_metadata_map.get(SCALES)
    uint8 = any(info.type == "tensor(uint8)" for info in session.get_inputs())
    return {name: Quantisation(*scale) for name, scale in json.loads(told).items()} if told and uint8 else {}


def _in_uint8(value: "NDArray[Any]", scale: Quantisation) -> "NDArray[np.uint8]":
    numbers: NDArray[np.uint8] = np.clip(np.rint(value / scale.step) + scale.zero_point, 0, 255).astype(np.uint8)
    return numbers


def _in_float32(numbers: "NDArray[Any]", scale: Quantisation) -> "Array":
    return np.float32(scale.step) * (numbers.astype(np.float32) - np.float32(scale.zero_point))


def _options(threads: int) -> "SessionOptions":
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return options


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors of a file that cannot be loaded; ONNX Runtime gives them no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    broken = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile, state.NoModel)
    return (*broken, state.NotImplemented, state.Fail, state.RuntimeException)
