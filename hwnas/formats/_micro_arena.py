"""Predicts the arena that TensorFlow Lite Micro needs for an int8 file, without it: what its allocator does, in bytes.

The arena's head holds activations, which a greedy planner lays out; its tail what is kept of tensors, operators and
channels. Sizes are those of pointers of 64 bits, as `hwnas verify` finds on this machine. Source:
tensorflow/lite/micro/micro_allocator.cc, micro_allocation_info.cc and memory_planner/greedy_memory_planner.cc of
tflite-micro; what an operator keeps was measured (benchmarks/arena.py).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from ai_edge_litert import schema_py_generated as schema

from hwnas.errors import ExportError

_ALIGNMENT = 16
_OP = schema.BuiltinOperator
_PARAMETERS = {  # bytes of an operator's options, as they are parsed; of others none
    _OP.ADD: 8,
    _OP.AVERAGE_POOL_2D: 40,
    _OP.CONCATENATION: 8,
    _OP.CONV_2D: 28,
    _OP.DEPTHWISE_CONV_2D: 28,
    _OP.FULLY_CONNECTED: 16,
    _OP.MAX_POOL_2D: 40,
    _OP.MEAN: 1,
    _OP.MUL: 4,
    _OP.RESHAPE: 36,
}
_KEPT = {  # bytes that its kernel keeps
    _OP.ADD: 64,
    _OP.AVERAGE_POOL_2D: 32,
    _OP.CONCATENATION: 80,
    _OP.CONV_2D: 80,
    _OP.DEPTHWISE_CONV_2D: 80,
    _OP.FULLY_CONNECTED: 80,
    _OP.HARD_SWISH: 32,
    _OP.MAX_POOL_2D: 32,
    _OP.MEAN: 48,
    _OP.MUL: 48,
    _OP.PAD: 64,
    _OP.PADV2: 64,
    _OP.QUANTIZE: 32,
    _OP.RELU: 32,
    _OP.RELU6: 16,
    _OP.RESHAPE: 0,
    _OP.SLICE: 0,
    _OP.TRANSPOSE: 0,
}
_CHANNELS = {_OP.CONV_2D, _OP.DEPTHWISE_CONV_2D, _OP.FULLY_CONNECTED}  # keep two numbers for each of their filters
_TENSOR, _NODE, _HANDLE = 24, 64, 8  # of each tensor, operator and scratch buffer
_SCRATCH = 3  # scratch buffers of a MEAN
_ALLOCATOR = 504  # what there is of itself before the first tensor
_ENDS = 208  # what is kept of the input and the output, last of all
_REQUEST, _INFO, _PLANNED = 16, 32, 40  # while it plans: of each scratch buffer, tensor, and activation
_REQUESTS = 12  # scratch buffers that an operator may ask for
_PREPARED = 3  # while a convolution is prepared: the zero points of so many tensors, a number a filter each
_PREPARING = 624  # and what else there is then


class Buffer(NamedTuple):
    """Bytes in the head that are used from one operator to another."""

    size: int
    first: int
    last: int


def micro_arena_bytes(
    tensors: Sequence[Any], codes: Sequence[int], operators: Sequence[Any], ends: Sequence[int]
) -> int:
    """Return the bytes of the smallest arena for a file's tensors and operators (TensorT, OperatorT, each one's code).

    `ends` are the numbers of its inputs and outputs. Raises ExportError for an operator that hwnas does not write in
    int8.
    """
    if unknown := set(codes) - _KEPT.keys():
        raise ExportError(f"the arena is predicted for operators of hwnas's int8 files; got {sorted(unknown)}")
    asked = [_SCRATCH if code == _OP.MEAN else 0 for code in codes]  # scratch buffers
    filters = [
        len(tensors[operator.inputs[1]].quantization.scale) if code in _CHANNELS else 0
        for code, operator in zip(codes, operators, strict=True)
    ]
    buffers = _buffers(tensors, codes, operators, ends)
    before = _aligned(_ALLOCATOR + _TENSOR * len(tensors) + _NODE * len(operators) + _parsed(codes))
    before += sum(_KEPT[code] for code in codes)
    kept = before + sum(2 * _aligned(4 * count) for count in filters) + _HANDLE * sum(asked)
    running = planned_bytes(buffers) + _aligned(kept + 8) + _ENDS
    planning = _aligned(_REQUEST * (_REQUESTS + sum(asked)) + 8 + _INFO * (len(tensors) + sum(asked)))
    planning += _PLANNED * len(buffers) + _aligned(kept)
    return _aligned(max(running, planning, _preparing(before, filters, asked)))


def _parsed(codes: Sequence[int]) -> int:
    """Return the bytes of the operators' options, each aligned to 4 but for a MEAN's, which is a byte."""
    end = 0
    for code in codes:
        size = _PARAMETERS.get(code, 0)
        end = _aligned(end + size, 1 if size == 1 else 4) if size else end
    return end


def _preparing(before: int, filters: Sequence[int], asked: Sequence[int]) -> int:
    """Return the bytes that are needed while the most demanding convolution is prepared."""
    most, kept, requests = 0, before, _REQUESTS
    for count, more in zip(filters, asked, strict=True):
        kept += 2 * _aligned(4 * count)
        if count:
            most = max(most, kept + _REQUEST * requests + _PREPARED * _aligned(4 * count + 4) + _PREPARING)
        requests += more
    return most


def _buffers(
    tensors: Sequence[Any], codes: Sequence[int], operators: Sequence[Any], ends: Sequence[int]
) -> list[Buffer]:
    """Return the activations, in the order of their numbers, and the scratch buffers."""
    first, last = dict.fromkeys(ends, 0), dict.fromkeys(ends, 0)
    scratch = []
    for place, (code, operator) in enumerate(zip(codes, operators, strict=True), 1):
        for number in operator.outputs:
            first[number] = place
        for number in (*operator.inputs, *operator.outputs):
            last[number] = place
        if code == _OP.MEAN:
            channels = prod(tensors[operator.outputs[0]].shape)
            scratch += [Buffer(_aligned(size), place, place) for size in (16, 16, 4 * channels)]
    return [
        Buffer(_aligned(prod(tensor.shape)), first[number], last[number])
        for number, tensor in enumerate(tensors)
        if tensor.buffer == 0
    ] + scratch


def planned_bytes(buffers: Sequence[Buffer]) -> int:
    """Return what the planner needs: the largest buffers first, of equal ones the latest, each in the first gap."""
    placed: list[tuple[int, Buffer]] = []  # by their offsets
    for buffer in sorted(buffers, key=lambda each: each.size)[::-1]:
        offset = 0
        for start, other in placed:
            if other.first > buffer.last or buffer.first > other.last:
                continue
            if start - offset >= buffer.size:
                break
            offset = max(offset, start + other.size)
        place = sum(start <= offset for start, _ in placed)
        placed.insert(place, (offset, buffer))
    return max((start + buffer.size for start, buffer in placed), default=0)


def _aligned(size: int, alignment: int = _ALIGNMENT) -> int:
    return -(-size // alignment) * alignment
