"""Errors of rounding and clipping at the outputs are those of the slopes, added up as they point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.calibration import choose_range
from quant_core.calibration.activation_range import measure
from quant_core.calibration.output_range import SHARES
from quant_core.executor import compile_model
from quant_core.ingest import normalise
from quant_core.quantizers.simulation.range_errors import range_errors
from tests.networks import network


def compiled(text: str):
    return compile_model(normalise(ir.from_proto(network(text))))


def feeds_of(*shape: int, batches: int = 4, size: int = 8):
    generator = torch.Generator().manual_seed(1)
    return [({"x": torch.randn(size, *shape, generator=generator)}, size) for _ in range(batches)]


def values_of(feeds) -> torch.Tensor:
    return torch.cat([batch["x"] for batch, _ in feeds])


def test_rounding_counts_the_squared_slopes_and_clipping_what_it_adds_up_to():
    program = compiled(
        "net (float[n, 64] x) => (float[n, 1] y) <int64[1] a = {1}> { h = Neg(x) y = ReduceSum(h, a) }"
    )
    feeds = feeds_of(64, batches=2)
    values = -values_of(feeds).double().numpy()
    seen = measure(torch.from_numpy(values).float())
    found = range_errors(program, feeds, {"h": seen}, 0)["h"]
    energy = float(np.mean(values[:8].sum(1) ** 2))
    assert found.rounded == pytest.approx(np.full(16, 64 / energy), rel=1e-5)
    for place in (0, 10, len(SHARES) - 1):
        above = np.minimum(seen.maximum * SHARES[place] - values, 0).sum(1)
        below = np.maximum(seen.minimum * SHARES[place] - values, 0).sum(1)
        assert found.above[:, 0, place] ** 2 * energy == pytest.approx(above**2, rel=1e-4, abs=1e-6)
        assert found.below[:, 1, place] ** 2 * energy == pytest.approx(below**2, rel=1e-4, abs=1e-6)
    assert found.highs == pytest.approx(values.max(1))
    assert found.lows == pytest.approx(values.min(1))


@pytest.mark.parametrize(
    ("reader", "reaches"),
    [("y = GlobalMaxPool(h)", True), ("y = GlobalAveragePool(h)", True), ("y = Add(h, c)", False)],
)
def test_ranges_reach_further_where_clipping_adds_up_than_where_it_does_not(reader, reaches):
    program = compiled(
        f"""net (float[n, 1, 40000] x) => (float[n, 1, m] y) {{
            [offset] c = Constant<value_float = 1.0>() h = Neg(x) {reader} }}"""
    )
    feeds = feeds_of(1, 40_000, size=4)
    seen = measure(-values_of(feeds))
    errors = range_errors(program, feeds, {"h": seen}, 0)["h"]
    high = choose_range(seen, "output", 4, errors)[1]
    alike = choose_range(seen, "mse", 4)
    assert choose_range(seen, "output", 4) == alike
    assert (high > 1.2 * alike[1]) is reaches


def test_outputs_of_other_scales_count_alike():
    program = compiled(
        """net (float[n, 512] x) => (float[n, 512] y, float[n, 512] z) {
            [scale] k = Constant<value_float = 1000.0>() a = Neg(x) b = Neg(x) y = Mul(a, k) z = Neg(b) }"""
    )
    feeds = feeds_of(512)
    seen = measure(values_of(feeds))
    errors = range_errors(program, feeds, {"a": seen, "b": seen}, 0)
    assert errors["a"].rounded == pytest.approx(errors["b"].rounded, rel=1e-4)


def test_what_no_output_depends_on_has_no_errors():
    program = compiled("net (float[n, 4] x) => (float[n, 4] y) { g = Neg(x) h = Sign(g) y = Mul(h, x) }")
    feeds = feeds_of(4)
    seen = measure(values_of(feeds))
    assert range_errors(program, feeds, {"g": seen}, 0) == {}
    assert range_errors(program, [], {"h": seen}, 0) == {}
