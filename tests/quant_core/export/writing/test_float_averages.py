"""Averages of windows in float are convolutions where onnxruntime has a slow kernel for them, and the same numbers."""

import numpy as np
import onnx
import pytest

from quant_core.export import predict_sizes
from quant_core.export.targets.portable import portable
from tests.quant_core.export.networks import HEADER, Net

CONV = "Conv<kernel_shape=[1,1]>"
WINDOWS = {
    "plain": "AveragePool<kernel_shape=[3,2]>",
    "in steps": "AveragePool<kernel_shape=[2,2], strides=[2,2]>",
    "padded": "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>",
    "no further": "AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>",
    "dilated": "AveragePool<kernel_shape=[2,2], dilations=[2,3]>",
}
OTHERS = {
    "cut off": "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>",
    "beyond": "AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>",
}


def _exported(text, path, shapes, bits=4, **target):
    net = Net((f"{HEADER} g {text}", shapes, {}, {}))
    widths = {layer.name: bits for layer in net.layers}
    _, file, simulated = net.export(widths, 32, path, **target)
    sizes = predict_sizes(net.model, net.layers, dict.fromkeys(widths, (bits,)), 32)
    assert target or abs(file.ByteSize() - sizes.total(widths)) <= 96
    return net, [node.op_type for node in file.graph.node], simulated


def _image(pool, path, channels=8, **target):
    body = f"a = {CONV}(x, u) r = Sin(a) p = {pool}(r) y = {CONV}(p, v)"
    text = f"(float[n,4,12,12] x) => (float[n,8,h,k] y) {{ {body} }}"
    return _exported(text, path, {"u": (channels, 4, 1, 1), "v": (8, channels, 1, 1)}, **target)


@pytest.mark.parametrize("pool", WINDOWS.values(), ids=WINDOWS)
def test_averages_of_windows_that_count_alike_are_convolutions(pool, tmp_path):
    net, operators, simulated = _image(pool, tmp_path / "model.onnx")
    assert "AveragePool" not in operators
    assert operators.count("Conv") == 3
    assert np.allclose(net.run(tmp_path / "model.onnx"), simulated, atol=1e-5)


@pytest.mark.parametrize("pool", OTHERS.values(), ids=OTHERS)
def test_others_stay(pool, tmp_path):
    net, operators, simulated = _image(pool, tmp_path / "model.onnx")
    assert "AveragePool" in operators
    assert np.allclose(net.run(tmp_path / "model.onnx"), simulated, atol=1e-5)


def test_channels_that_fill_blocks_stay_and_so_does_what_other_runtimes_read(tmp_path):
    pool = WINDOWS["plain"]
    assert "AveragePool" in _image(pool, tmp_path / "model.onnx", channels=16)[1]
    assert "AveragePool" in _image(pool, tmp_path / "model.onnx", target=portable(21))[1]


def test_averages_over_channels_as_in_local_response_normalization(tmp_path):
    text = """(float[n,4,6,6] x) => (float[n,8,6,6] y) {
        a = Conv<kernel_shape=[1,1]>(x, u) s = Mul(a, a) one = Constant<value_ints=[1]>() b = Unsqueeze(s, one)
        p = AveragePool<kernel_shape=[5,1,1], pads=[2,0,0,2,0,0], count_include_pad=1>(b) q = Squeeze(p, one)
        d = Sqrt(q) e = Add(d, a) y = Conv<kernel_shape=[1,1]>(e, v)
    }"""
    net, operators, simulated = _exported(
        text, tmp_path / "model.onnx", {"u": (8, 4, 1, 1), "v": (8, 8, 1, 1)}
    )
    assert "AveragePool" not in operators
    assert np.allclose(net.run(tmp_path / "model.onnx"), simulated, atol=1e-5)


def test_between_integer_kernels_they_stay_in_float(tmp_path):
    text = f"""(float[n,4,12,12] x) => (float[n,8,h,k] y) {{
        a = {CONV}(x, u) p = AveragePool<kernel_shape=[7,7]>(a) y = {CONV}(p, v)
    }}"""
    net = Net((f"{HEADER} g {text}", {"u": (8, 4, 1, 1), "v": (8, 8, 1, 1)}, {}, {}))
    path = tmp_path / "model.onnx"
    _, file, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, path)
    assert [node.op_type for node in file.graph.node if node.op_type in {"AveragePool", "LeakyRelu"}] == [
        "LeakyRelu"
    ]
    assert np.abs(net.run(path) - simulated).max() <= 1.01 * max(grid.scale for grid in net.grids.values())
    assert onnx.load(path).opset_import[0].version >= 19
