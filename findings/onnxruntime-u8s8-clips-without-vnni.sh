#!/usr/bin/env bash
# ONNX Runtime adds products of uint8 and int8 in 16 bits, and clips them, on x86 without VNNI.
#
# Guess:    an int8 file computes the same integers on every x86; only its speed depends on the CPU.
# Versions: onnxruntime 1.31.0, onnx 1.23.0, numpy 2.3.5; CPython 3.11, Linux x86-64, a CPU with AVX2 and no VNNI.
# Seen:     MatMulInteger of 64 times 255 (uint8) and 64 times 127 (int8), which is 2072640, gives 1048544: each pair of
#           products, 64770, is clipped to 32767. With weights up to 64 it is exact (1044480). So is uint8 x uint8.
#           On a CPU with VNNI (avx512_vnni or avx_vnni) all are exact. ONNX Runtime's documentation on quantization
#           advises 7-bit weights (reduce_range) there; `quantize_static` does not take them by itself.
# hwnas:    writes ONNX int8 weights of 7 bits (hwnas/formats/_onnx_int8.py); before, networks were off by two thirds of
#           their largest output on such a CPU. tests/formats/test_onnx_int8.py compares with a reduced range.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.31.0 onnx==1.23.0 numpy==2.3.5 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def product(kind, weight):
    number = {np.int8: TensorProto.INT8, np.uint8: TensorProto.UINT8}[kind]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])],
        [helper.make_tensor("b", number, [64, 16], np.full((64, 16), weight, kind).tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(session.run(None, {"a": np.full((1, 64), 255, np.uint8)})[0][0, 0])


seen = {"u8s8, 127": product(np.int8, 127), "u8s8, 64": product(np.int8, 64), "u8u8, 127": product(np.uint8, 127)}
print(seen)
flags = Path("/proc/cpuinfo").read_text()
exact = {"u8s8, 127": 2072640, "u8s8, 64": 1044480, "u8u8, 127": 2072640}
has_vnni = "avx512_vnni" in flags or "avx_vnni" in flags
expected = exact if has_vnni else {**exact, "u8s8, 127": 1048544}
assert seen == expected, f"expected {expected}"
PYTHON
