"""Float layers between rounded tensors stay float, whatever onnxruntime moves rounding past."""

import numpy as np
import pytest
from onnx import TensorProto

from quant_core.spec import FLOAT_BITS
from quant_core.spec.bits import WIDE_BITS
from tests.quant_core.export.networks import HEADER, Net, optimized

SHAPES = {"first": (8, 8, 3, 3), "middle": (8, 8, 3, 3), "last": (8, 8, 3, 3)}
MOVERS = {
    "MaxPool": "MaxPool<kernel_shape=[2,2], strides=[2,2]>",
    "Relu": "Relu",
    "Transpose": "Transpose<perm=[0,1,3,2]>",
}


def net_around(op: str, before: list[str], behind: list[str]) -> Net:
    """A layer between two convolutions, with other operators before and behind."""
    convolution = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
    steps = [f"{convolution}({{}}, first)", *(f"{MOVERS[name]}({{}})" for name in before)]
    steps += [f"{convolution.replace('Conv', op)}({{}}, middle)"]
    steps += [*(f"{MOVERS[name]}({{}})" for name in behind), f"{convolution}({{}}, last)"]
    names = ["x", *(f"t{number}" for number in range(len(steps) - 1)), "y"]
    body = " ".join(
        f"{to} = {step.format(source)}" for source, to, step in zip(names, names[1:], steps, strict=False)
    )
    text = f"{HEADER} g (float[n,8,12,12] x) => (float[n,8,h,w] y) {{ {body} }}"
    return Net((text, SHAPES, set(), {}))


def dequantized_weights(path) -> list[str]:
    """Names of the operators whose weights onnxruntime has rounded."""
    graph = optimized(path)
    stored = {array.name for array in graph.initializer if array.data_type == TensorProto.INT8}
    found = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    return [node.op_type for node in graph.node if len(node.input) > 1 and node.input[1] in found]


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([], []),
        ([], ["MaxPool"]),
        ([], ["Relu", "MaxPool"]),
        ([], ["Transpose", "Relu"]),
        (["MaxPool"], []),
        (["Relu", "Transpose"], ["Transpose", "MaxPool"]),
    ],
)
def test_weights_behind_activations_of_sixteen_bits_are_not_rounded_at_load(op, before, behind, tmp_path):
    net, path = net_around(op, before, behind), tmp_path / "model.onnx"
    _, _, simulated = net.export({layer.name: 4 for layer in net.layers}, WIDE_BITS, path)
    assert dequantized_weights(path) == []
    assert np.abs(net.run(path) - simulated).max() <= 3e-4 * np.abs(simulated).max()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("before", [["MaxPool"], ["Relu", "Transpose"]])
def test_a_float_layer_between_integer_kernels_keeps_its_weight(op, before, tmp_path):
    net, path = net_around(op, before, []), tmp_path / "model.onnx"
    bits = {layer.name: FLOAT_BITS if layer.weight == "middle" else 8 for layer in net.layers}
    placement, _, _ = net.export(bits, 8, path)
    assert sorted(placement.forms.values()) == ["float", "static", "static"]
    assert dequantized_weights(path) == []
