"""Small networks to tune, their inputs and start, and how far tuned ones are from them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.spec import WeightOptions


def build(nodes, x_shape, weights):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x_shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto)
    model = normalise(ir.from_proto(proto))
    return proto, model, find_layers(model), compile_model(model)


def small_net():
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.standard_normal((32, 3, 3, 3)) / 5,
        "b1": rng.standard_normal(32) / 5,
        "w2": rng.standard_normal((32, 32, 3, 3)) / 17,
        "b2": rng.standard_normal(32) / 5,
        "w3": rng.standard_normal((32, 8)) / 6,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["y"], name="third"),
    ]
    return build(nodes, (3, 8, 8), weights)


def conv(x, y, number, weights, channels=4):
    weights[f"w{number}"] = np.random.default_rng(number).standard_normal((channels, channels, 3, 3)) / 6
    return helper.make_node("Conv", [x, f"w{number}"], [y], name=f"conv{number}", pads=[1, 1, 1, 1])


def chain(count):
    weights, nodes, x = {}, [], "x"
    for number in range(count):
        y = "y" if number == count - 1 else f"r{number}"
        nodes += [conv(x, f"c{number}", number, weights), helper.make_node("Relu", [f"c{number}"], [y])]
        x = y
    return nodes, weights


def images(count, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, 2, 2)).repeat(4, axis=2).repeat(4, axis=3)
    return (coarse + 0.3 * rng.standard_normal((count, 3, 8, 8))).astype(np.float32)


def by_gptq(model, layers, program, samples, bits):
    rounded = round_weights(
        CalibrationMoments(FloatNetwork(program, model, layers, 16), samples, 0),
        {layer.name: (bits,) for layer in layers},
        WeightOptions(bias_correction=False, weight_range="mse"),
        on_progress=lambda *_: None,
    )
    return {name: row[bits] for name, row in rounded.items()}


def output_error(proto, layers, weights, x):
    """Error of the output in onnxruntime, with the weights put into the file."""
    changed = onnx.ModelProto.FromString(proto.SerializeToString())
    values = {n: v for layer in layers for n, v in weights[layer.name].stand_ins(layer.weight).items()}
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    outputs = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (proto, changed)
    ]
    return float(np.square(outputs[0] - outputs[1]).mean())
