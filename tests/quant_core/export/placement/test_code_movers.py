"""Operators that move values run on codes: nothing is rounded twice, and files equal the simulation."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from quant_core.export.placement.code_movers import repetitions
from quant_core.export.targets.portable import portable
from tests.networks import network
from tests.quant_core.export.networks import HEADER, Net

PADS, SIZES = [0, 2, 1, 0, 0, 2, 0, 1], [5, 16, 12, 12]
MOVERS = {
    "Split": ("p, q = Split<axis=1, num_outputs=2>(a)  m = Concat<axis=1>(q, p)", 16, {}),
    "Slice": ("m = Slice(a, one, two, two)", 16, {"one": [1], "two": [2]}),
    "Pad": ("m = Pad(a, pads)", 20, {"pads": PADS}),
    "Pad of zeros": ("m = Pad(a, pads, zero)", 20, {"pads": PADS, "zero": 0.0}),
    "Pad by reflection": ('m = Pad<mode="reflect">(a, pads)', 20, {"pads": PADS}),
    "Gather": ("m = Gather<axis=1>(a, order)", 16, {"order": list(range(15, -1, -1))}),
    "Resize": (
        'm = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , , sizes)',
        16,
        {"sizes": SIZES},
    ),
    "DepthToSpace": ('m = DepthToSpace<blocksize=2, mode="CRD">(a)', 4, {}),
    "ReduceMax": ("m = ReduceMax<keepdims=1>(a, last)", 16, {"last": [3]}),
}
OTHERS = {
    "Pad of ones": ("m = Pad(a, pads, one)", 20, {"pads": PADS, "one": 1.0}),
    "Resize between pixels": ('m = Resize<mode="linear">(a, , , sizes)', 16, {"sizes": SIZES}),
}


def _net(between, channels, constants):
    text = f"""{HEADER} g (float[n,16,6,6] x) => (float[n,16,h,w] y) {{
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        {between}
        y = Conv<kernel_shape=[1,1]>(m, w2)
    }}"""
    weights = {"w1": (16, 16, 3, 3), "b1": (16,), "w2": (16, channels, 1, 1)}
    return Net((text, weights, {"QLinearConv"}, constants))


@pytest.mark.parametrize("name", MOVERS)
def test_what_moves_values_moves_codes(name, tmp_path):
    net, path = _net(*MOVERS[name]), tmp_path / "model.onnx"
    bits = {layer.name: 4 for layer in net.layers}
    placement, file, simulated = net.export(bits, 8, path)
    step = net.grids["y"].scale
    assert np.abs(net.run(path) - simulated).max() <= 1.01 * step
    # The input, what each convolution writes, and what is put together anew.
    rounded = sum(node.op_type == "QuantizeLinear" for node in file.graph.node)
    assert rounded == 3 + (name == "Split")
    assert set(placement.aliases.values()) == {"a"}


@pytest.mark.parametrize("name", MOVERS)
def test_other_runtimes_agree(name, tmp_path):
    net, path = _net(*MOVERS[name]), tmp_path / "model.onnx"
    bits = {layer.name: 4 for layer in net.layers}
    _, _, simulated = net.export(bits, 8, path, portable(21))
    (returned,) = ReferenceEvaluator(str(path)).run(["y"], net.feeds)
    assert np.abs(returned - simulated).max() <= 1.01 * net.grids["y"].scale


@pytest.mark.parametrize("name", OTHERS)
def test_what_writes_values_of_its_own_is_rounded_anew(name, tmp_path):
    net, path = _net(*OTHERS[name]), tmp_path / "model.onnx"
    placement, _, simulated = net.export({layer.name: 4 for layer in net.layers}, 8, path)
    assert np.abs(net.run(path) - simulated).max() <= 1.01 * net.grids["y"].scale
    assert "m" in placement.points
    assert not placement.aliases


@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("where", ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize("times", [(1, 2), (2, 2), (3, 4), (8, 8)])
def test_a_resize_repeats_places_where_it_says_so(times, where, nearest):
    modes = f'coordinate_transformation_mode="{where}", nearest_mode="{nearest}"'
    scales = np.array([1, 1, *times], np.float32)
    proto = network(
        f"g (float[1,1,5,5] x) => (float[1,1,h,w] y) {{ y = Resize<{modes}>(x, , scales) }}",
        {"scales": scales},
    )
    (node,) = ir.from_proto(proto).graph
    image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    found = ReferenceEvaluator(proto).run(None, {"x": image})[0]
    repeated = np.array_equal(found, image.repeat(times[0], axis=2).repeat(times[1], axis=3))
    assert (repetitions(node) == times) == (repeated and where != "align_corners")


@pytest.mark.parametrize(
    "scales", [[1.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.5, 2.0], [1.0, 1.0, 0.5, 0.5], [1.0, 1.0, 2.0]]
)
def test_other_scales_repeat_no_places(scales):
    value = ir.Value(name="s", const_value=ir.tensor(np.array(scales, np.float32)))
    node = ir.node(
        "Resize", [ir.Value(name="x"), None, value], {"coordinate_transformation_mode": "asymmetric"}
    )
    assert repetitions(node) is None
