"""The activation arena of a .tflite file: how many bytes LiteRT's interpreter puts its activations into.

The planner of LiteRT (arena_planner.cc and simple_memory_arena.cc), worked out anew from a file's tensors and
operators: largest first, each into the tightest gap that is free while it lives, at multiples of 64 bytes. Inputs and
outputs are never overwritten; ADD, MUL and RESHAPE write over what they alone read.

It is of the file's own activations, without a delegate, for the file's batch. What kernels take beside them is not in
it: im2col buffers of TFLite's optimised convolutions, with which the arena is up to five times as large and which
delegates such as XNNPACK do without; MEAN's sums; weights that are converted when a file is loaded. With the reference
kernels, which have no im2col, it is what the interpreter allocates, to the byte (benchmarks/memory.py).
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from pathlib import Path

Op = schema.BuiltinOperator
_ALIGNMENT = 64  # bytes
_IN_PLACE = {Op.ADD, Op.MUL}  # which write their output over an input of as many bytes that nothing else reads
_SAME = {Op.RESHAPE}  # whose output is the input
_SMALLEST = 4  # bytes: what is no larger is not shared
_BYTES = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.FLOAT16: 2,
    schema.TensorType.INT32: 4,
    schema.TensorType.UINT8: 1,
    schema.TensorType.INT8: 1,
}


class _Life(NamedTuple):
    """An activation's bytes, and the first and last operator that need it."""

    size: int
    first: int
    last: int


class _Placed(NamedTuple):
    offset: int
    life: _Life

    @property
    def end(self) -> int:
        return self.offset + self.life.size


def arena_bytes(
    tensors: Sequence[Any], operators: Sequence[Any], codes: Sequence[int], *, inputs: Sequence[int], output: int
) -> int:
    """Return the bytes of the arena; tensors and operators are the schema's, in the order of execution."""
    lives = _lives(tensors, operators, codes, inputs=inputs, output=output)
    whole = [life for life in lives if life.first == 0 and life.last == len(operators)]
    others = [life for life in lives if not (life.first == 0 and life.last == len(operators))]
    placed: list[_Placed] = []
    for life in (*whole, *sorted(others, key=lambda life: (-life.size, life.first))):
        placed.append(_Placed(_offset(life, placed), life))
        placed.sort()
    return max(place.end for place in placed)


def arena_of_file(path: "Path") -> int:
    """Return the bytes of the arena of a .tflite file of one subgraph."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    (graph,) = model.subgraphs
    (output,) = graph.outputs
    codes = [code.builtinCode for code in model.operatorCodes]
    return arena_bytes(graph.tensors, graph.operators, codes, inputs=graph.inputs, output=int(output))


def _lives(
    tensors: Sequence[Any], operators: Sequence[Any], codes: Sequence[int], *, inputs: Sequence[int], output: int
) -> list[_Life]:
    """Return the lives of the activations; several that share their bytes have one."""
    readers = _readers(operators, [*inputs, output])
    shared: dict[int, int] = {}  # by an activation: the first of those whose bytes it shares
    first = {int(number): 0 for number in inputs}
    for at, operator in enumerate(operators):
        (written,) = operator.outputs
        code = codes[operator.opcodeIndex]
        if code == Op.DEQUANTIZE and tensors[operator.inputs[0]].buffer:
            continue  # weights, converted once
        source = _shared_input(tensors, operator, code, readers, shared, kept={*inputs, output})
        if source is None:
            first[int(written)] = at
        else:
            shared[int(written)] = shared.get(source, source)
    last = {number: len(operators) for number in (*map(int, inputs), shared.get(output, output))}
    for at, operator in enumerate(operators):
        for number in map(int, (*operator.inputs, *operator.outputs)):
            bytes_of = shared.get(number, number)
            if bytes_of in first:
                last[bytes_of] = max(at, last.get(bytes_of, 0))
    return [_Life(_size(tensors[number]), first[number], last[number]) for number in first]


def _readers(operators: Sequence[Any], kept: Sequence[int]) -> Mapping[int, int]:
    """Return how often each tensor is read; what is kept to the end once more."""
    readers: dict[int, int] = {}
    for number in (*kept, *(source for operator in operators for source in operator.inputs)):
        readers[int(number)] = readers.get(int(number), 0) + 1
    return readers


def _shared_input(
    tensors: Sequence[Any],
    operator: Any,
    code: int,
    readers: Mapping[int, int],
    shared: Mapping[int, int],
    *,
    kept: set[int],
) -> int | None:
    """Return the input over which an operator writes its output, if there is one."""
    (written,) = operator.outputs
    if written in kept or not (code in _IN_PLACE or code in _SAME):
        return None
    for source in map(int, operator.inputs[: 1 if code in _SAME else 2]):
        if source in kept or tensors[source].buffer:
            continue
        if code in _SAME:
            return source
        alike = _size(tensors[source]) == _size(tensors[written]) > _SMALLEST
        if alike and readers[source] == 1 and readers[shared.get(source, source)] == 1:
            return source
    return None


def _offset(life: _Life, placed: Sequence[_Placed]) -> int:
    """Return where an activation goes, among those that have their places, by rising offset: the tightest gap."""
    best, tightest, end = None, None, 0
    for other in placed:
        if other.life.last < life.first or other.life.first > life.last:
            continue
        start = _aligned(end)
        if start + life.size <= other.offset and (tightest is None or other.offset - start < tightest):
            best, tightest = start, other.offset - end
        end = max(end, other.end)
    return _aligned(end) if best is None else best


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _size(tensor: Any) -> int:
    return int(prod(map(int, tensor.shape))) * _BYTES[tensor.type]
