"""Tensors that cannot reach beyond an end are found, with the end."""

import math

import onnx_ir as ir

from quant_core.ingest.value_bounds import value_bounds


def test_ends_are_those_of_the_operator():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 21]> net (float[n, 4] x, float given) => (float[n, 4] y)
        <float low = {0}, float high = {6}> {
        a = Clip(x, low, high) b = Clip(x, , high) c = Clip(x, low) d = Clip(x, given, high) e = Sigmoid(x)
        f = HardSigmoid(x) g = Softmax(x) h = Tanh(x) i = Relu(x) y = Sum(a, b, c, d, e, f, g, h, i) }"""
    )
    assert value_bounds(model) == {
        "a": (0, 6),
        "b": (-math.inf, 6),
        "c": (0, math.inf),
        "d": (-math.inf, 6),
        **dict.fromkeys("efg", (0, 1)),
        "h": (-1, 1),
    }
