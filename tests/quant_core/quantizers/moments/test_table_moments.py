"""Tables rounded by how the outputs move with their columns, against dense derivatives and nearest codes."""

import numpy as np
import pytest

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.grids.weight import quantize_weight
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.moments.table_moments import is_table, table_moments
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.spec import WeightOptions
from quant_core.spec.weight_grid import WeightGrid
from tests.quant_core.quantizers.drawn_layers import build

ROWS, COLUMNS = 400, 24
TEXT = "g (int64[n] ids) => (float[n,{0}] y) {{ rows = Gather(t, ids) y = MatMul(rows, w) }}"


def setting(outputs):
    model, layers = build(TEXT.format(outputs), t=(ROWS, COLUMNS), w=(COLUMNS, outputs))
    ids = np.random.default_rng(1).integers(0, ROWS // 2, 64)
    table = next(layer for layer in layers if layer.op == "Gather")
    weights = {name: model.graph.initializers[name].const_value.numpy() for name in ("t", "w")}
    return model, compile_model(model), table, Samples(inputs={"ids": ids}), weights


def rounded(model, program, layer, samples, given=None, **options):
    found = round_weights(
        CalibrationMoments(FloatNetwork(program, model, [layer], 16), samples, 0),
        {layer.name: (3, 4)},
        WeightOptions(**options),
        on_progress=lambda *_: None,
        given=given,
    )
    return found[layer.name]


def test_curvature_is_that_of_one_output():
    """With a single output the signs square to 1, so that nothing is left to chance."""
    _, program, layer, samples, weights = setting(1)
    found = table_moments(program, [layer], samples, batch_size=16, seed=0)[layer.name]
    largest = np.abs(weights["t"][samples.inputs["ids"]]).max(1)
    dense = np.mean(largest**2) * weights["w"] @ weights["w"].T
    expected = 0.6 * dense + 0.4 * np.diag(dense.diagonal())
    np.testing.assert_allclose(found.second[0].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert not found.mean.any()


@pytest.mark.parametrize("bits", [3, 4])
def test_rows_that_no_sample_reads_gain_as_well(bits):
    model, program, layer, samples, weights = setting(6)
    codes = rounded(model, program, layer, samples)[bits]
    plain = quantize_weight(weights["t"], bits, layer.step_axis(WeightGrid()), WeightGrid(range_search="mse"))
    np.testing.assert_array_equal(codes.scale, plain.scale)
    ours, theirs = (
        np.square((found.dequantize() - weights["t"]) @ weights["w"]).sum(1) for found in (codes, plain)
    )
    assert ours[: ROWS // 2].sum() < 0.7 * theirs[: ROWS // 2].sum()
    assert ours[ROWS // 2 :].sum() < 0.7 * theirs[ROWS // 2 :].sum()


def test_codes_stay_when_more_samples_join():
    model, program, layer, samples, _ = setting(6)
    first = rounded(model, program, layer, samples)
    again = rounded(model, program, layer, samples.take(np.arange(8)), given={layer.name: first})
    assert all(again[bits] is first[bits] for bits in (3, 4))


def test_rounding_by_value_takes_the_nearest_codes():
    model, program, layer, samples, weights = setting(6)
    found = rounded(model, program, layer, samples, rounding="nearest", weight_range="mse")[4]
    plain = quantize_weight(weights["t"], 4, layer.step_axis(WeightGrid()), WeightGrid(range_search="mse"))
    np.testing.assert_array_equal(found.codes, plain.codes)


def test_a_table_that_is_multiplied_with_as_well_is_none():
    text = """g (int64[n] ids, float[n,24] x) => (float[n,24] y, float[n,400] z) {
        y = Gather(t, ids) z = Gemm<transB=1>(x, t) }"""
    _, (layer,) = build(text, t=(ROWS, COLUMNS))
    assert {use.op for use in layer.uses} == {"Gather", "Gemm"}
    assert not is_table(layer)
