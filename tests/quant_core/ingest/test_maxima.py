"""Which tensors reach what reads them by their largest values alone."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from quant_core.ingest.maxima import before_maxima
from tests.networks import network


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ("h = Conv(x, w) r = Relu(h) s = Mul(r, c) y = GlobalMaxPool(s)", {"h", "r", "s"}),
        ("h = Conv(x, w) t = Transpose(h) y = ReduceMax(t)", {"h", "t"}),
        ("a = Conv(x, w) b = Conv(x, w) h = Add(a, b) y = ReduceMax(h)", {"a", "b", "h"}),
        ("h = Conv(x, w) m = MaxPool<kernel_shape = [5, 5]>(h) y = Relu(m)", {"h"}),
        ("h = Conv(x, w) m = MaxPool<kernel_shape = [2, 2]>(h) y = Relu(m)", set()),
        ("h = Conv(x, w) m = MaxPool<kernel_shape = [2, 2]>(h) y = GlobalMaxPool(m)", {"h", "m"}),
        ("h = Conv(x, w) g = Conv(h, w) y = GlobalMaxPool(g)", {"g"}),
        ("h = Conv(x, w) s = AveragePool<kernel_shape = [2, 2]>(h) y = GlobalMaxPool(s)", {"s"}),
        ("h = Conv(x, w) y = GlobalAveragePool(h)", set()),
    ],
)
def test_tensors_in_front_of_a_maximum_over_many_places(nodes, found):
    model = network(
        f"""net (float[1, 2, 8, 8] x) => (y) <float[2, 2, 1, 1] w = {{1, 2, 3, 4}}, float[1] c = {{2}}> {{ {nodes} }}"""
    )
    assert before_maxima(ir.from_proto(model)) == found
