"""Swish between integer kernels is one operator in float; its sigmoid is not rounded."""

import numpy as np
import onnx
import pytest

from quant_core.export import predict_sizes
from quant_core.export.targets.portable import portable
from quant_core.export.writing.float_swish import fuse_swish
from tests.networks import network
from tests.quant_core.export.networks import Net, optimized_operators

CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
SHAPES = dict.fromkeys("uvw", (8, 8, 3, 3))
SWISH = "s = Sigmoid(a) m = Mul(a, s)"


def _net(body):
    return Net((f"g (float[n,8,12,12] x) => (float[n,8,12,12] y) {{ {body} }}", SHAPES, {}, {}))


@pytest.mark.parametrize("swish", [SWISH, SWISH.replace("a, s", "s, a")])
def test_swish_of_codes_is_one_operator(swish, tmp_path):
    net = _net(f"a = {CONV}(x, u) {swish} b = {CONV}(m, v) c = Add(b, m) y = {CONV}(c, w)")
    path = tmp_path / "model.onnx"
    bits = {layer.name: 8 for layer in net.layers}
    placement, file, simulated = net.export(bits, 8, path)
    assert placement.points == ("x", "a", "m", "b", "c", "y")
    operators = optimized_operators(path)
    assert operators.count("QuickGelu") == operators.count("QLinearAdd") == 1
    assert operators.count("DequantizeLinear") == 2
    assert not {"Sigmoid", "Mul", "QLinearSigmoid", "QLinearMul"}.intersection(operators)
    assert np.abs(net.run(path) - simulated).max() <= 2.01 * net.grids["y"].scale
    assert np.mean(net.run(path) != simulated) < 0.05
    assert (
        abs(file.ByteSize() - predict_sizes(net.model, net.layers, dict.fromkeys(bits, (8,)), 8).total(bits))
        <= 64
    )


def test_its_sigmoid_is_rounded_where_others_read_it_and_in_files_of_standard_operators(tmp_path):
    text = f"a = {CONV}(x, u) {SWISH} b = {CONV}(m, v) c = Mul(b, s) y = {CONV}(c, w)"
    for body, target in ((text, None), (text.replace("c = Mul(b, s)", "c = Relu(b)"), portable(21))):
        net, path = _net(body), tmp_path / "model.onnx"
        bits = {layer.name: 8 for layer in net.layers}
        placement, _, simulated = net.export(bits, 8, path, **({} if target is None else {"target": target}))
        assert "s" in placement.points
        assert {"QLinearSigmoid", "QLinearMul"} <= set(optimized_operators(path))
        assert np.abs(net.run(path) - simulated).max() <= 2.01 * net.grids["y"].scale


GATE = "g = HardSigmoid<alpha=0.16666667, beta=0.5>(a) m = Mul(g, a)"


@pytest.mark.parametrize("other", [False, True])
def test_hard_swish_of_codes_is_dequantized_once(other, tmp_path):
    gate = GATE.replace("0.5", "0.4") if other else GATE
    net, path = _net(f"a = {CONV}(x, u) {gate} y = {CONV}(m, v)"), tmp_path / "model.onnx"
    _, file, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, path)
    assert ("HardSwish" in [node.op_type for node in file.graph.node]) != other
    assert optimized_operators(path).count("DequantizeLinear") == 2 + other
    assert [entry.domain for entry in file.opset_import] == [""]
    assert np.abs(net.run(path) - simulated).max() <= 2.01 * net.grids["y"].scale


def _written(body, output="y"):
    text = f"g (float[n,8,12,12] x, float[8,8,3,3] u) => (float[n,8,12,12] {output}) {{ {body} }}"
    return network(text)


@pytest.mark.parametrize(
    "body",
    [
        f"a = {CONV}(x, u) s = Sigmoid(a) y = Mul(a, s)",
        "a = Neg(x) s = Sigmoid(a) y = Mul(x, s)",
        "a = Neg(x) s = Sigmoid(a) m = Mul(a, s) y = Add(m, s)",
    ],
    ids=["behind a product", "of another", "read twice"],
)
def test_other_products_stay(body):
    proto = _written(body)
    before = proto.SerializeToString()
    fuse_swish(proto)
    assert proto.SerializeToString() == before


def test_outputs_and_what_bodies_read_stay():
    proto = _written("a = Neg(x) s = Sigmoid(a) y = Mul(a, s)")
    proto.graph.output.append(onnx.helper.make_tensor_value_info("s", 1, None))
    fuse_swish(proto)
    assert [node.op_type for node in proto.graph.node] == ["Neg", "Sigmoid", "Mul"]
