"""What a TFLite file says of itself: its operators and its precision."""

from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from hwnas.errors import InputError, quoted

_INTEGERS = {schema.TensorType.INT8, schema.TensorType.UINT8}
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def operators_in(path: Path) -> tuple[str, ...]:
    """Return the names of a file's operators, as in CONV_2D, each once, in their order; raises InputError."""
    model = _read(path)
    codes = [model.operatorCodes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
    names = (_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in codes)  # older files have the other
    return tuple(dict.fromkeys(names))


def precision_of(path: Path) -> str:
    """Return a file's precision, one of those that hwnas writes; raises InputError.

    In int8 what operators compute is integers, too; in fp16 and dynamic range weights alone are smaller.
    """
    (graph, *_) = _read(path).subgraphs
    types = {tensor.type for tensor in graph.tensors}
    computed = {graph.tensors[number].type for operator in graph.operators for number in operator.outputs}
    if schema.TensorType.FLOAT16 in types:
        return "fp16"
    if not types & _INTEGERS:
        return "fp32"
    return "int8" if computed & _INTEGERS else "dynamic"


def _read(path: Path) -> Any:
    data = path.read_bytes()
    try:
        model = schema.ModelT.InitFromPackedBuf(data)
        if data[4:8] != b"TFL3" or not model.subgraphs or not model.subgraphs[0].operators:
            raise ValueError("it has no operators")
    except Exception as error:  # noqa: BLE001  flatbuffers and struct raise what they like on a broken file
        raise InputError(f"a .tflite file must be a whole one; {path} is not: {quoted(error)}") from None
    return model
