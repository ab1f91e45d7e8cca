"""Estimated times against onnxruntime's, and what they are made of."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from quant_core.export import place
from quant_core.export.run_time import estimated_time
from quant_core.ingest import find_layers, normalise
from quant_core.spec import FLOAT_BITS

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
SIDE, CHANNELS = 8, 16
PLANE = CHANNELS * SIDE**2
PASS, LAYOUT, MOVE = 16, 12, 4


def estimate(body, floats=(), kernel=1):
    text = f"{HEADER} g (float[1,{CHANNELS},{SIDE},{SIDE}] x) => (float[1,{CHANNELS},{SIDE},{SIDE}] y) {{ {body} }}"
    proto = onnx.parser.parse_model(text)
    for name in ("u", "v", "w"):
        values = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, kernel, kernel))
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    model = normalise(ir.from_proto(proto))
    layers = tuple(
        replace(layer, macs=PLANE * CHANNELS, activation_bits=FLOAT_BITS if layer.weight in floats else None)
        for layer in find_layers(model)
    )
    placement = place(model, layers, {layer.name: 8 for layer in layers}, 8)
    names = ["x", *(value.name for node in model.graph for value in node.outputs)]
    return estimated_time(model, layers, placement, dict.fromkeys(names, PLANE))


CHAIN = "a = Conv(x, u) b = Conv(a, v) y = Conv(b, w)"


def test_integer_kernels_take_a_quarter_and_two_borders() -> None:
    assert estimate(CHAIN) == 3 * PLANE * CHANNELS / 4 + 2 * PASS * PLANE


def test_a_float_convolution_between_takes_passes_and_layouts_as_well() -> None:
    more = estimate(CHAIN, floats={"v"}) - estimate(CHAIN)
    assert more == PLANE * CHANNELS * 3 / 4 + 2 * PASS * PLANE + 2 * LAYOUT * PLANE


def test_what_falls_back_with_a_layer_counts() -> None:
    """A Split and a Concat run on codes so long as the layers around them do."""
    shuffle = "p, q = Split<axis=1, num_outputs=2>(a) m = Concat<axis=1>(q, p)"
    moved = f"a = Conv(x, u) {shuffle} b = Conv(m, v) y = Conv(b, w)"
    integer, mixed = estimate(moved), estimate(moved, floats={"u", "v"})
    kernels = estimate(CHAIN, floats={"u", "v"}) - estimate(CHAIN)
    assert mixed - integer > kernels
    assert integer - estimate(CHAIN) == MOVE * 2 * PLANE + PASS * PLANE


def test_what_moves_nothing_is_free() -> None:
    plain = "a = Conv(x, u) s = Sin(a) y = Conv(s, v)"
    held = "a = Conv(x, u) s = Sin(a) r = Shape(x) t = Reshape(s, r) y = Conv(t, v)"
    assert estimate(held) == estimate(plain)
