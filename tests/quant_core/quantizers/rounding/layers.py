"""Single layers of every kind, moments of their inputs, and what rounding loses of their outputs."""

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper

from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers.moments.input_moments import InputMoments
from quant_core.quantizers.moments.rows import rows_shape, to_rows

CASES = {
    "conv": ("Conv", (3, 6, 9, 9), (8, 6, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "grouped": ("Conv", (3, 6, 8, 8), (9, 2, 3, 3), {"group": 3, "dilations": [2, 1]}),
    "depthwise": (
        "Conv",
        (3, 4, 8, 8),
        (4, 1, 3, 3),
        {"group": 4, "auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "1d": ("Conv", (3, 4, 12), (5, 4, 4), {"auto_pad": "SAME_UPPER"}),
    "3d": ("Conv", (2, 2, 5, 5, 5), (3, 2, 2, 3, 2), {"dilations": [1, 2, 1]}),
    "gemm": ("Gemm", (12, 7), (5, 7), {"transB": 1}),
    "gemm_plain": ("Gemm", (12, 7), (7, 5), {}),
    "matmul": ("MatMul", (3, 4, 7), (7, 5), {}),
    "transposed": ("ConvTranspose", (2, 5, 6, 6), (5, 4, 2, 3), {"strides": [2, 1]}),
}


def build(op, x_shape, w_shape, attributes):
    weight = np.random.default_rng(3).standard_normal(w_shape).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name="layer", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x_shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *"abcd"[: len(x_shape) - 1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto)
    model = normalise(ir.from_proto(proto))
    (layer,) = find_layers(model)
    return model, layer, weight, compile_model(model)


def moments_of(layer, seed=1):
    groups, _, inputs = rows_shape(layer)
    mixing = torch.randn(groups, inputs, inputs, generator=torch.Generator().manual_seed(seed))
    return InputMoments(mixing @ mixing.transpose(1, 2) / inputs, torch.zeros(groups, inputs), 10**6, 10**6)


def moments(layer, columns=400, seed=1):
    rng = np.random.default_rng(seed)
    groups, _, inputs = to_rows(layer, np.zeros(layer.shape, np.float32)).shape
    mixing = np.eye(inputs) + 0.4 * np.random.default_rng(7).standard_normal((groups, inputs, inputs))
    x = (rng.standard_normal((groups, columns, inputs)) @ mixing).astype(np.float32)
    second = torch.from_numpy(np.einsum("gni,gnj->gij", x, x) / columns)
    return InputMoments(second, torch.from_numpy(x.mean(1)), columns, columns)


def output_error(layer, weight, quantized, second):
    delta = to_rows(layer, quantized.dequantize() - weight)
    return float(torch.einsum("goi,gij,goj->", delta, second, delta))


def row_errors(layer, weight, values, second):
    lost = to_rows(layer, (values - weight).astype(np.float64)).double()
    return ((lost @ second.double()) * lost).sum(2).numpy()
