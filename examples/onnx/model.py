"""A small ONNX model, made here, and how onnxruntime runs it."""

import os
from functools import cache

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH = 512
LAYERS = 6


@cache
def network():
    """A few dense layers with fixed weights, as the bytes of an ONNX file."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for number in range(LAYERS):
        matrix = random.standard_normal((WIDTH, WIDTH), dtype=np.float32) / np.float32(WIDTH**0.5)
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"y{number}"]))
        nodes.append(helper.make_node("Relu", [f"y{number}"], [f"x{number + 1}"]))
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH])] for name in ("x0", f"x{LAYERS}")
    )
    graph = helper.make_graph(nodes, "dense", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


class Dense:
    """Built once inside every process that serves it: a row of 512 numbers in, as many out."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("INTRA_OP_NUM_THREADS", "1"))
        self.session = onnxruntime.InferenceSession(network(), options, providers=["CPUExecutionProvider"])

    def __call__(self, rows):
        return self.session.run(None, {"x0": np.asarray(rows, dtype=np.float32)})[0]
