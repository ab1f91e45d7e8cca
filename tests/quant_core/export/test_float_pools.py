"""onnxruntime takes maxima of codes slowly but where convolutions have laid channels last."""

import numpy as np
import pytest

from tests.quant_core.export.networks import HEADER, Net, optimized

POOL = "MaxPool<kernel_shape=[2,2], strides=[2,2]>"
CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
WEIGHTS = {"w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "u": (8, 16, 3, 3)}


def _kernels(path):
    graph = optimized(path)
    codes = {name for node in graph.node if node.op_type == "QuantizeLinear" for name in node.output}
    return [
        ("codes" if node.op_type == "NhwcMaxPool" or node.input[0] in codes else "float")
        for node in graph.node
        if node.op_type in {"MaxPool", "NhwcMaxPool"}
    ]


def _net(body, used):
    text = f"{HEADER} g (float[n,8,12,12] x) => (float[n,8,h,w] y) {{ {body} }}"
    return Net(
        (text, {name: WEIGHTS[name] for name in used}, {"QLinearConv"}, {"pads": [0, 0, 1, 1, 0, 0, 1, 1]})
    )


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (f"a = {CONV}(x, w1)  p = {POOL}(a)  y = {CONV}(p, w2)", ("w1", "w2")),
        (f"a = {CONV}(x, w1)  r = Relu(a)  p = {POOL}(r)  y = {CONV}(p, w2)", ("w1", "w2")),
        (
            f"a = {CONV}(x, w1)  r = LeakyRelu(a)  q = Pad(r, pads)  p = {POOL}(q)  y = {CONV}(p, w2)",
            ("w1", "w2"),
        ),
        (
            f"a = {CONV}(x, w1)  b = {CONV}(x, w2)  s = Add(a, b)  p = {POOL}(s)  y = {CONV}(p, w3)",
            ("w1", "w2", "w3"),
        ),
        (f"a = {CONV}(x, w1)  p = {POOL}(a)  q = {POOL}(p)  y = {CONV}(q, w2)", ("w1", "w2")),
    ],
    ids=["convolution", "absorbed", "kept", "sum", "twice"],
)
def test_behind_integer_convolutions_codes_are_pooled(body, used, tmp_path):
    net = _net(body, used)
    placement, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "model.onnx")
    assert not placement.float_pools
    assert "p" in placement.aliases
    assert set(_kernels(tmp_path / "model.onnx")) == {"codes"}
    assert np.abs(net.run(tmp_path / "model.onnx") - simulated).max() <= 1.01 * net.grids["y"].scale


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (f"p = {POOL}(x)  y = {CONV}(p, w1)", ("w1",)),
        (f"f = Sin(x)  p = {POOL}(f)  r = Relu(p)  y = {CONV}(r, w1)", ("w1",)),
        (f"f = Sin(x)  p = {POOL}(f)  q = {POOL}(p)  y = {CONV}(q, w1)", ("w1",)),
        (f"a = {CONV}(x, w1)  p = {POOL}(x)  q = {CONV}(p, w2)  b = {POOL}(a)  y = Add(q, b)", ("w1", "w2")),
        (
            f"a = {CONV}(x, w1)  f = Sin(x)  c = Concat<axis=1>(a, f)  p = {POOL}(c)  y = {CONV}(p, u)",
            ("w1", "u"),
        ),
    ],
    ids=["input", "rectified", "twice", "codes for others", "parts"],
)
def test_elsewhere_pools_run_in_float(body, used, tmp_path):
    net = _net(body, used)
    placement, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "model.onnx")
    assert placement.float_pools
    assert "p" not in placement.aliases
    assert "float" in _kernels(tmp_path / "model.onnx")
    step = max(grid.scale for grid in net.grids.values())
    assert np.abs(net.run(tmp_path / "model.onnx") - simulated).max() <= 1.01 * step


def test_layers_in_float_have_their_pools_in_float(tmp_path):
    net = _net(f"a = {CONV}(x, w1)  p = {POOL}(a)  y = {CONV}(p, w2)", ("w1", "w2"))
    first, second = (layer.name for layer in net.layers)
    net.export({first: 32, second: 8}, 8, tmp_path / "model.onnx")
    assert _kernels(tmp_path / "model.onnx") == ["float"]
