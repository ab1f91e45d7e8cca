"""Batch normalizations, averages and repeated places between integer convolutions run on codes."""

import re

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from quant_core.export import predict_sizes
from quant_core.export.targets.portable import portable
from tests.quant_core.export.networks import HEADER, Net, optimized_operators

CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
TWICE = 'Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">'
NORM = ("s", "t", "m", "v")
SIZES = {"w": (8, 8, 3, 3), "u": (8, 8, 3, 3), "z": (8, 8, 3, 3), "o": (8, 16, 3, 3), "e": (8, 24, 3, 3)}


def _net(body, channels=8):
    text = f"{HEADER} g (float[n,8,12,12] x) => (float[n,8,h,k] y) {{ {body} }}"
    rng = np.random.default_rng(3)
    held = {
        name: rng.standard_normal(channels).astype(np.float32) for name in NORM
    }  # some channels are turned
    held["v"] = np.abs(held["v"]) + 0.1
    held["s"][1], held["t"][1] = 1e-9, 3.0
    held["scales"] = np.array([1, 1, 2, 2], np.float32)
    sizes = SIZES | {name: array.shape for name, array in held.items()}
    read = set(re.findall(r"\w+", body))
    return Net((text, {name: size for name, size in sizes.items() if name in read}, {}, {}), **held)


CASES = {
    "norm": (f"a = {CONV}(x, w) b = BatchNormalization(a, s, t, m, v) c = Add(a, b) y = {CONV}(c, u)", 8, 2),
    "rectified": (
        (
            f"a = {CONV}(x, w) q = {CONV}(a, u) p = Add(q, a) b = BatchNormalization(p, s, t, m, v) r = Relu(b)"
            f" y = {CONV}(r, z)"
        ),
        8,
        3,
    ),
    "parts": (
        (
            f"a = {CONV}(x, w) b = {CONV}(a, u) c = Concat<axis=1>(a, b)"
            f" d = BatchNormalization(c, s, t, m, v) r = Relu(d) y = {CONV}(r, o)"
        ),
        16,
        3,
    ),
    "parts of parts": (
        (
            f"a = {CONV}(x, w) b = {CONV}(a, u) c = Concat<axis=1>(a, b) g = LeakyRelu(b)"
            f" k = Concat<axis=1>(g, c) d = BatchNormalization(k, s, t, m, v) r = Relu(d) y = {CONV}(r, e)"
        ),
        24,
        3,
    ),
    "average": (
        f"a = {CONV}(x, w) p = AveragePool<kernel_shape=[3,3], strides=[2,2]>(a) y = {CONV}(p, u)",
        8,
        2,
    ),
    "padded average": (
        (
            f"a = {CONV}(x, w) p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(a)"
            f" y = {CONV}(p, u)"
        ),
        8,
        2,
    ),
}


@pytest.mark.parametrize(("body", "channels", "convolutions"), CASES.values(), ids=CASES)
def test_what_scales_or_averages_channels_is_an_integer_convolution(body, channels, convolutions, tmp_path):
    net, path = _net(body, channels), tmp_path / "model.onnx"
    bits = {layer.name: 8 for layer in net.layers}
    placement, file, simulated = net.export(bits, 8, path)
    operators = optimized_operators(path)
    assert operators.count("QLinearConv") == convolutions + 1
    assert not {"BatchNormalization", "AveragePool", "DequantizeLinear"}.intersection(operators[:-1])
    assert np.abs(net.run(path) - simulated).max() <= 2.01 * net.grids["y"].scale
    assert np.mean(net.run(path) != simulated) < 0.05
    sizes = predict_sizes(net.model, net.layers, dict.fromkeys(bits, (8,)), 8)
    assert abs(file.ByteSize() - sizes.total(bits)) <= 96
    assert ("c" in placement.joined) == ("parts" in body or "Concat" in body)
    net.export(bits, 8, path, portable(21))
    found = ReferenceEvaluator(onnx.load(path)).run(["y"], net.feeds)[0]
    assert np.abs(found - simulated).max() <= 2.01 * net.grids["y"].scale


@pytest.mark.parametrize(
    "pool",
    [
        "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>",
        "AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>",
        'AveragePool<kernel_shape=[3,3], auto_pad="SAME_UPPER">',
    ],
    ids=["windows cut off", "windows beyond", "pads unknown"],
)
def test_other_averages_between_integer_convolutions_are_taken_in_float(pool, tmp_path):
    net, path = _net(f"a = {CONV}(x, w) p = {pool}(a) y = {CONV}(p, u)"), tmp_path / "model.onnx"
    placement, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, path)
    assert {"a", "p"} <= set(placement.points)
    operators = optimized_operators(path)
    assert "AveragePool" in operators
    assert "QLinearAveragePool" not in operators
    assert np.abs(net.run(path) - simulated).max() <= 1.01 * max(grid.scale for grid in net.grids.values())


def test_a_sum_of_grids_is_rounded_where_others_than_normalizations_read_it(tmp_path):
    body = (
        f"a = {CONV}(x, w) b = {CONV}(a, u) c = Concat<axis=1>(a, b)"
        f" d = BatchNormalization(c, s, t, m, v) r = Add(d, c) y = {CONV}(r, o)"
    )
    net, path = _net(body, 16), tmp_path / "model.onnx"
    placement, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, path)
    assert not placement.joined
    assert "c" in placement.points
    assert np.abs(net.run(path) - simulated).max() <= 2.01 * net.grids["y"].scale


def test_a_part_in_float_is_rounded_for_normalizations(tmp_path):
    body = (
        f"a = {CONV}(x, w) b = {CONV}(a, u) h = HardSwish(b) i = Sin(h) c = Concat<axis=1>(h, b)"
        f" d = BatchNormalization(c, s, t, m, v) r = Relu(d) l = {CONV}(r, o) y = Add(l, i)"
    )
    net, path = _net(body, 16), tmp_path / "model.onnx"
    placement, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, path)
    assert placement.joined["c"] == (("h", 8), ("b", 8))
    assert "h" in placement.points
    assert np.abs(net.run(path) - simulated).max() <= 2.01 * max(grid.scale for grid in net.grids.values())


def test_places_of_codes_are_repeated_by_copies(tmp_path):
    net, path = _net(f"a = {CONV}(x, w) p = {TWICE}(a, , scales) y = {CONV}(p, u)"), tmp_path / "model.onnx"
    bits = {layer.name: 8 for layer in net.layers}
    placement, file, simulated = net.export(bits, 8, path)
    assert list(placement.repeated.values()) == [(2, 2)]
    operators = optimized_operators(path)
    assert "Resize" not in operators
    assert operators.count("Transpose") <= 2  # of the image and of the answer
    assert np.abs(net.run(path) - simulated).max() <= 1.01 * net.grids["y"].scale
    sizes = predict_sizes(net.model, net.layers, dict.fromkeys(bits, (8,)), 8)
    assert abs(file.ByteSize() - sizes.total(bits)) <= 96
    net.export(bits, 8, path, portable(21))
    assert "Resize" in [node.op_type for node in onnx.load(path).graph.node]
