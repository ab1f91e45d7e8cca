"""Borders between codes and float tensors."""

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.export import place
from quant_core.export.placement.float_borders import float_borders
from quant_core.ingest import find_layers, normalise
from tests.networks import drawn, network

CONV = "Conv<kernel_shape=[1,1]>"
POOL = "p = MaxPool<kernel_shape=[1,1]>(r)"
HEAD = "g (float[n,4,6,6] x) => (float[n,4,6,6] y) "


def borders(body):
    shapes = {name: (4, 4, 1, 1) for name in "uvw" if f", {name})" in body}
    proto = network(HEAD + body, drawn(np.random.default_rng(0), shapes))
    model = normalise(ir.from_proto(proto))
    layers = find_layers(model)
    placement = place(model, layers, {layer.name: 8 for layer in layers}, 8)
    found = float_borders(model, layers, placement)
    weight = {layer.name: layer.weight for layer in layers}
    return sorted(map(weight.get, found.reading)), sorted(map(weight.get, found.writing))


@pytest.mark.parametrize(
    ("body", "reading", "writing"),
    [
        (f"{{ a = {CONV}(x, u) r = Relu(a) y = {CONV}(r, v) }}", [], []),
        (
            f"{{ a = {CONV}(x, u) b = {CONV}(a, v) s = Add(a, b) r = Relu(s) {POOL} y = {CONV}(p, w) }}",
            [],
            [],
        ),
        (f"{{ a = {CONV}(x, u) b = {CONV}(x, v) s = Add(a, b) y = {CONV}(s, w) }}", [], []),
        (f"{{ a = {CONV}(x, u) h = HardSwish(a) y = {CONV}(h, v) }}", ["v"], ["u"]),
        (f"{{ a = {CONV}(x, u) h = Tanh(a) b = {CONV}(h, v) s = Add(a, b) y = {CONV}(s, w) }}", ["v"], []),
        (f"{{ a = {CONV}(x, u) r = Relu(a) h = Tanh(r) y = {CONV}(h, v) }}", ["v"], []),
    ],
)
def test_borders_are_where_float_operators_are(body, reading, writing):
    assert borders(body) == (reading, writing)
