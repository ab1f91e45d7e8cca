"""Operators in float read a tensor as it was computed, where integer kernels read its codes beside them."""

import numpy as np
import onnxruntime
import pytest

from quant_core.executor import compile_model
from quant_core.export import place
from quant_core.export.placement.float_readers import part_readers
from quant_core.ingest import find_layers
from quant_core.spec import FLOAT_BITS
from quant_core.verification.inner_tensors import read_inner_tensors
from tests.quant_core.export.networks import HEADER, Net

WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 16, 1, 1)}
BEGIN = HEADER + "g (float[n,8,6,6] x) => (float[n,c,h,w] y"
CASES = {  # what is read by both -> the tensor, and the operator that must see floats
    "input": (BEGIN + ") { a = Conv(x, w1, b1)  s = Sin(x)  p = Cos(a)  q = Conv(p, w2)  r = Sin(q) "
              "m = ReduceMean<keepdims=1>(s)  y = Add(r, m) }", "x"),
    "sum": (BEGIN + ") { a = Conv(x, w1, b1)  f = Sin(a)  g = Cos(a)  t = Add(f, g)  c = Conv(t, w2) "
            "e = Atan(c)  y = Add(t, e) }", "t"),
    "moved": (BEGIN + ") { a = Conv(x, w1, b1)  f = Sin(a)  t = Transpose<perm=[0,1,3,2]>(f)  c = Conv(t, w2) "
              "e = Atan(c)  y = Add(t, e) }", "t"),
    "two kernels": (BEGIN + ") { a = Conv(x, w1, b1)  t = Sin(a)  c = Conv(t, w2)  d = Conv(t, w3) "
                    "k = Mul(c, d)  q = Conv(k, w4)  e = Atan(q)  y = Add(t, e) }", "t"),
}  # fmt: skip


def _parted(net):
    bits = {layer.name: 8 for layer in net.layers}
    net.model = part_readers(net.model, net.layers, place(net.model, net.layers, bits, 8))
    net.layers, net.program = find_layers(net.model), compile_model(net.model)
    return net


def _net(case):
    text, tensor = CASES[case]
    more = {"w3": (16, 16, 1, 1), "w4": (16, 16, 1, 1)} if "w3" in text else {}
    return _parted(Net((text, WEIGHTS | more, {"QLinearConv"}, {}))), tensor


@pytest.mark.parametrize("case", CASES)
def test_tensors_are_found_where_no_kernel_reads_codes_after_all(case, tmp_path):
    net, tensor = _net(case)
    net.export({layer.name: 8 for layer in net.layers}, FLOAT_BITS, tmp_path / "m.onnx")
    names = (tensor, f"{tensor}:codes")  # one tensor in the file
    found = read_inner_tensors(tmp_path / "m.onnx", net.model, names, net.placement, net.grids, net.feeds)
    np.testing.assert_array_equal(*(found[name] for name in names))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bits", [4, 8])
def test_floats_stay_as_they_were_computed(case, bits, tmp_path):
    net, tensor = _net(case)
    placement, file, simulated = net.export(
        {layer.name: bits for layer in net.layers}, 8, tmp_path / "m.onnx"
    )
    assert not placement.is_rounded(tensor)
    apart = f"{tensor}:codes"
    assert placement.is_rounded(apart)
    assert "Identity" not in {node.op_type for node in file.graph.node}
    coarse = max(grid.scale for grid in net.grids.values())
    returned = net.run(tmp_path / "m.onnx")
    assert np.abs(returned - simulated).max() <= 3 * coarse  # single codes may lie between two
    assert np.median(np.abs(returned - simulated)) < 1e-5
    found = read_inner_tensors(
        tmp_path / "m.onnx", net.model, [tensor, apart], placement, net.grids, net.feeds
    )
    grid = net.grids[apart]
    codes = found[apart] / np.float32(grid.scale)
    assert np.abs(codes - np.round(codes)).max() < 1e-3
    codes = found[tensor] / np.float32(grid.scale)
    assert np.abs(codes - np.round(codes)).max() > 0.1


@pytest.mark.parametrize("between", ["t = Sin(a)", "f = Sin(a)  t = Reshape(f, same)"])
def test_outputs_of_the_graph_stay_as_they_were_computed(between, tmp_path):
    text = f"""{HEADER} g (float[n,8,6,6] x) => (float[n,16,h,w] y, float[n,16,4,4] t) {{
        a = Conv(x, w1, b1)  {between}  m = MaxPool<kernel_shape=[2,2]>(t)  c = Conv(t, w2)  d = Conv(m, w3)
        e = Atan(c)  f2 = ReduceMax<keepdims=1>(d)  y = Add(e, f2)
    }}"""
    net = _parted(Net((text, WEIGHTS | {"w3": (16, 16, 1, 1)}, {}, {"same": [0, 16, 4, 4]})))
    placement, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "m.onnx")
    assert {"t", "t:codes"} & set(placement.points) == {"t:codes"}
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    given, returned = session.run(["t", "y"], net.feeds)
    assert np.abs(returned - simulated).max() <= 1.01 * max(grid.scale for grid in net.grids.values())
    expected = net.simulation.tensors(net.feeds, ["t"])["t"]
    assert np.quantile(np.abs(given - expected), 0.99) < 1e-5  # a code of `a` may lie between two


def test_names_inside_of_bodies_stand_for_nothing_outside(tmp_path):
    text = f"""{HEADER} g (float[n,8,6,6] x, bool yes) => (float[n,16,h,w] y) {{
        a = Conv(x, w1, b1)  t = Sin(a)  c = Conv(t, w2)  e = Atan(c)
        i = If(yes) <then_branch = g1 () => (float[n,16,h,w] p) {{ inner = Tanh(t)  p = Cos(inner) }},
                     else_branch = g2 () => (float[n,16,h,w] q) {{ q = Sin(t) }}>
        y = Add(e, i)
    }}"""
    net = Net((text, WEIGHTS, {}, {}))
    (body,) = (graph for graph in net.model.graphs() if graph.name == "g1")
    body[0].outputs[0].name = "t:codes"
    net = _parted(net)
    net.feeds["yes"] = np.array(True)
    assert "t:codes_" in {str(node.outputs[0].name) for node in net.model.graph}
    _, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "m.onnx")
    assert np.median(np.abs(net.run(tmp_path / "m.onnx") - simulated)) < 1e-5


def test_what_kernels_alone_read_or_write_is_left_as_it_is():
    text = f"""{HEADER} g (float[n,8,6,6] x) => (float[n,16,h,w] y) {{
        a = Conv(x, w1, b1)  s = Sin(a)  c = Conv(s, w2)  d = Sin(c)  e = Conv(c, w3)  f = Sin(e)  y = Add(d, f)
    }}"""
    net = Net((text, WEIGHTS | {"w3": (16, 16, 1, 1)}, {}, {}))
    placed = place(net.model, net.layers, {layer.name: 8 for layer in net.layers}, 8)
    assert part_readers(net.model, net.layers, placed) is net.model


def test_a_tensor_that_comes_to_be_rounded_hands_its_codes_on(tmp_path):
    net, _ = _net("two kernels")
    bits = {layer.name: 8 for layer in net.layers}
    pool = net.model.clone()
    for node in pool.graph:  # in place of a float operator one that gives codes where it is given codes
        if node.op_type == "Sin":
            node.op_type = "Sigmoid"
    net.model, net.layers, net.program = pool, find_layers(pool), compile_model(pool)
    placement, _, simulated = net.export(bits, 8, tmp_path / "m.onnx")
    assert placement.aliases["t:codes"] == "t"
    assert np.abs(net.run(tmp_path / "m.onnx") - simulated).max() <= 1.01 * max(
        grid.scale for grid in net.grids.values()
    )
