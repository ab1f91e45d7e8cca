import numpy as np
import onnx_ir as ir
import pytest

from quant_core.allocation.ties import read_ties
from quant_core.errors import SpecError
from quant_core.ingest import find_layers, normalise
from quant_core.ingest.fusion_groups import find_fusion_groups
from tests.networks import drawn, network

NET = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[N, 4, 8, 8] x, float[N, 6, 4] t) => (float[N, 4, 8, 8] y, float[N, 6, 6] s, float[N, 6, 4] u)
<float[4, 1, 3, 3] dw, float[4, 4, 1, 1] pw, float[4, 4, 3, 3] side,
 float[4, 4] wq, float[4, 4] wk, float[4, 4] wo, float[4] bias>
{
    d = Conv<group=4, pads=[1, 1, 1, 1]>(x, dw)
    r = Relu(d)
    p = Conv(r, pw)
    o = Conv<pads=[1, 1, 1, 1]>(x, side)
    y = Add(p, o)
    q0 = MatMul(t, wq)
    q = Add(q0, bias)
    k = MatMul(t, wk)
    kt = Transpose<perm=[0, 2, 1]>(k)
    s = MatMul(q, kt)
    once = MatMul(s, t)
    a = MatMul(once, wo)
    twice = Relu(a)
    u = MatMul(twice, wo)
}
"""


@pytest.fixture
def net():
    square = dict.fromkeys(("wq", "wk", "wo"), (4, 4))
    shapes = {"dw": (4, 1, 3, 3), "pw": (4, 4, 1, 1), "side": (4, 4, 3, 3), "bias": (4,)} | square
    proto = network(NET, drawn(np.random.default_rng(0), shapes))
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    model = normalise(ir.from_proto(proto))
    return model, find_layers(model)


def test_groups_are_found_by_kind(net):
    model, layers = net
    names = {layer.weight: layer.name for layer in layers}
    found = {(group.kind, group.layers) for group in find_fusion_groups(model.graph, layers)}
    assert found == {
        ("depthwise", (names["dw"], names["pw"])),
        ("residual", (names["pw"], names["side"])),
        ("shared_input", (names["wq"], names["wk"])),
        ("shared_weight", (names["wo"],)),
    }


def test_ties_by_kind_and_by_pattern(net):
    model, layers = net
    groups = find_fusion_groups(model.graph, layers)
    names = {layer.weight: layer.name for layer in layers}
    chain = tuple(layer.name for layer in layers if layer.weight in {"dw", "pw", "side"})
    assert read_ties([["depthwise"], ["residual"]], layers, groups) == (chain,)
    assert read_ties([["w?"]], layers, groups) == ((names["wq"], names["wk"], names["wo"]),)
    assert read_ties([], layers, groups) == ()
    with pytest.raises(SpecError, match="nothing"):
        read_ties([["nothing*", "wq"]], layers, groups)
