"""Hard sigmoids in pieces become one operator; onnxruntime says that the graph computes the same."""

import numpy as np
import pytest

from tests.networks import network
from tests.quant_core.ingest.normalised import kept, ops

WHOLE = "g (float[n,3,5] x) => (float[n,3,5] y) <float three = {3}, float zero = {0}, float six = {6}> "
SWISH = WHOLE + "{ a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) d = Div(m, six) y = Neg(d) }"


def both(text):
    x = np.random.default_rng(0).standard_normal((7, 3, 5)).astype(np.float32) * 4
    fused = kept(network(text), {"x": x}, 1e-6)
    return ops(fused), [node.outputs[0].name for node in fused.graph]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (SWISH, ["HardSigmoid", "Mul", "Neg"]),
        (SWISH.replace("Mul(x, c)", "Mul(c, x)").replace("Add(x, three)", "Add(three, x)"), None),
        (SWISH.replace("m = Mul(x, c) d = Div(m, six)", "d = Div(c, six)"), ["HardSigmoid", "Neg"]),
    ],
)
def test_pieces_become_one_operator(text, left):
    operators, names = both(text)
    assert operators == (left or ["HardSigmoid", "Mul", "Neg"])
    assert names[-2:] == ["d", "y"]


@pytest.mark.parametrize(
    "text",
    [
        SWISH.replace("Div(m, six)", "Div(m, three)"),
        SWISH.replace("Div(m, six)", "Div(six, m)"),
        SWISH.replace("Clip(a, zero, six)", "Clip(a, three, six)"),
        SWISH.replace("y = Neg(d)", "e = Neg(d) y = Add(e, c)"),
        SWISH.replace("y = Neg(d)", "e = Neg(d) y = Add(e, a)"),
        SWISH.replace("d = Div(m, six) y = Neg(d)", "y = Div(m, six)"),
    ],
)
def test_other_expressions_stay(text):
    assert "HardSigmoid" not in both(text)[0]
