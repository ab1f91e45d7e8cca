"""What errors are worth is the mean squared slope of the outputs in the values of each bin."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from quant_core.calibration import choose_range
from quant_core.calibration.activation_range import BINS, measure
from quant_core.executor import compile_model
from quant_core.ingest import normalise
from quant_core.quantizers.activation_worth import activation_worth


def compiled(text: str):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')
    return compile_model(normalise(ir.from_proto(model)))


def batches(*shape: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(8, *shape, generator=generator)} for _ in range(4)]


def test_worth_is_the_squared_slope():
    program = compiled("net (float[n, 64] x) => (float[n, 64] y) { h = Neg(x) y = Mul(h, h) }")
    feeds = batches(64)
    seen = measure(-torch.cat([batch["x"] for batch in feeds]))
    worth = activation_worth(program, feeds, {"h": seen}, 0)["h"]
    filled = np.flatnonzero(seen.counts > 1)
    centers = (seen.edges[:-1] + seen.edges[1:])[filled] / 2
    # The slope of x^2 is 2x, whatever sign it is drawn with; every batch counts by its own energy.
    assert np.corrcoef(worth[filled], centers**2)[0, 1] > 0.9
    assert float((worth * seen.counts).sum()) == pytest.approx(seen.count, rel=0.15)


def test_in_front_of_a_maximum_the_range_holds_what_comes_through():
    program = compiled("net (float[n, 6, 400] x) => (float[n, 6, 1] y) { h = Neg(x) y = GlobalMaxPool(h) }")
    feeds = batches(6, 400)
    values = -torch.cat([batch["x"] for batch in feeds])
    seen = measure(values)
    worth = activation_worth(program, feeds, {"h": seen}, 0)["h"]
    assert worth.shape == (BINS,)
    _, high = choose_range(seen, "output", 8, worth)
    alike = choose_range(seen, "output", 8)
    assert alike == choose_range(seen, "mse", 8)
    assert high > 0.97 * seen.maximum > alike[1]


def test_outputs_of_other_scales_count_alike():
    program = compiled(
        """net (float[n, 512] x, float[n, 512] u) => (float[n, 512] y, float[n, 512] z) {
            [scale] k = Constant<value_float = 1000.0>()
            h = Concat<axis = 1>(x, u) [cut] c = Constant<value_ints = [512, 512]>()
            a, b = Split<axis = 1>(h, c) y = Mul(a, k) z = Identity(b) }"""
    )
    generator = torch.Generator().manual_seed(0)
    feeds = [
        {"x": 1 + torch.rand(8, 512, generator=generator), "u": -1 - torch.rand(8, 512, generator=generator)}
    ]
    seen = measure(torch.cat([feeds[0]["x"], feeds[0]["u"]]))
    worth = activation_worth(program, feeds, {"h": seen}, 0)["h"]
    filled = seen.counts > 0
    assert worth[filled].max() < 1.1 * worth[filled].min()


def test_what_no_output_depends_on_has_no_worth():
    program = compiled("net (float[n, 4] x) => (float[n, 4] y) { g = Neg(x) h = Sign(g) y = Mul(h, x) }")
    feeds = batches(4)
    seen = measure(feeds[0]["x"])
    assert activation_worth(program, feeds, {"g": seen}, 0) == {}
    assert activation_worth(program, [], {"h": seen}, 0) == {}
