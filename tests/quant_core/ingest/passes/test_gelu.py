"""GELU in pieces becomes one operator; onnxruntime says that the graph computes the same."""

import numpy as np
import pytest

from tests.networks import network
from tests.quant_core.ingest.normalised import kept, ops

HEADER = '<ir_version: 10, opset_import: ["" : 17]>\n'
WHOLE = (
    "g (float[n,3,5] x) => (float[n,3,5] y) <float root = {1.41421354}, float one = {1}, float half = {0.5}, "
    "float two = {2}, float inverse = {0.70710677}> "
)
GELU = WHOLE + "{ d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) g = Mul(m, half) y = Neg(g) }"


def both(text):
    x = np.random.default_rng(0).standard_normal((7, 3, 5)).astype(np.float32) * 4
    fused = kept(network(HEADER + text), {"x": x})
    return ops(fused), [node.outputs[0].name for node in fused.graph]


@pytest.mark.parametrize(
    "text",
    [
        GELU,
        GELU.replace("Div(x, root)", "Mul(inverse, x)").replace("Add(e, one)", "Add(one, e)"),
        GELU.replace("Mul(x, a)", "Mul(a, x)").replace("Mul(m, half)", "Div(m, two)"),
        GELU.replace("m = Mul(x, a) g = Mul(m, half)", "m = Mul(a, half) g = Mul(x, m)"),
        GELU.replace("m = Mul(x, a) g = Mul(m, half)", "m = Mul(x, half) g = Mul(m, a)"),
    ],
)
def test_pieces_become_one_operator(text):
    assert both(text) == (["Gelu", "Neg"], ["g", "y"])


@pytest.mark.parametrize(
    "text",
    [
        GELU.replace("Div(x, root)", "Div(x, two)"),
        GELU.replace("Div(x, root)", "Div(root, x)"),
        GELU.replace("Add(e, one)", "Add(e, two)"),
        GELU.replace("Mul(m, half)", "Mul(m, two)"),
        GELU.replace("Mul(x, a)", "Mul(e, a)"),
        GELU.replace("Mul(x, a)", "Div(x, a)"),
        GELU.replace("y = Neg(g)", "n = Neg(g) y = Add(n, a)"),
        GELU.replace("g = Mul(m, half) y = Neg(g)", "y = Mul(m, half)"),
    ],
)
def test_other_expressions_stay(text):
    assert "Gelu" not in both(text)[0]
