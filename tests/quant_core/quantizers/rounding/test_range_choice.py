"""Ranges chosen by what GPTQ makes of them, against the output error computed from the inputs themselves."""

import numpy as np
import pytest

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.grids.scaled_rows import to_scaled_rows
from quant_core.quantizers.grids.weight import drawn_in, find_steps
from quant_core.quantizers.moments.input_moments import input_moments
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.spec.weight_grid import WeightGrid
from tests.quant_core.quantizers.drawn_layers import build
from tests.quant_core.quantizers.rounding.one_product import TEXT, errors, setting

GRIDS = {
    "channel": WeightGrid(range_search="hessian"),
    "tensor": WeightGrid("tensor", range_search="hessian"),
    "block": WeightGrid("block", 16, range_search="hessian"),
    "zero points": WeightGrid(symmetric=False, range_search="hessian"),
}


def expected(weight, rounded, moments):
    """The same from the moments, which are shrunk a little towards their diagonal."""
    lost = rounded.dequantize() - weight
    return np.einsum("ko,kl,lo->o", lost, moments.shrunk()[0].numpy(), lost)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_output_is_worse_than_under_the_whole_range(name, bits):
    _, layer, weight, x, moments = setting(10)
    grid = GRIDS[name]
    whole = WeightGrid(grid.granularity, grid.block_size, grid.symmetric, range_search="minmax")
    found, plain = (
        gptq(layer, weight, moments, [bits], grid_of=lambda _, given=given: given)[bits]
        for given in (grid, whole)
    )
    ours, theirs = errors(x, weight, found), errors(x, weight, plain)
    if name == "tensor":
        assert ours.sum() <= theirs.sum() * 1.001
    else:
        assert (expected(weight, found, moments) <= expected(weight, plain, moments) * 1.02).all()
    if name == "channel":
        assert ours.sum() < 0.98 * theirs.sum()


def test_ranges_beat_those_of_least_weight_error_at_two_bits():
    _, layer, weight, x, moments = setting(40)
    found, plain = (
        gptq(layer, weight, moments, [2], grid_of=lambda _, name=name: WeightGrid(range_search=name))[2]
        for name in ("hessian", "mse")
    )
    assert errors(x, weight, found).sum() < errors(x, weight, plain).sum()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("outputs", [40, 300])
def test_weights_far_out_do_not_widen_the_range_of_all_others(outputs, symmetric):
    """Weights are normal but for those of one input, nearly silent, that lie 13 standard deviations out."""
    text = TEXT.replace("24", "192").format(outputs)
    model, (layer,) = build(text, w=(192, outputs), b=(outputs,))
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((192, outputs)).astype(np.float32)
    weight[7] = 13
    x = rng.standard_normal((600, 192)).astype(np.float32)
    x[:, 7] *= 1e-3
    network = FloatNetwork(compile_model(model), model, [layer], 600)
    moments = input_moments(network, [layer], Samples(inputs={"x": x}), seed=0)[layer.name]
    found, least, whole = (
        gptq(
            layer,
            weight,
            moments,
            [2],
            grid_of=lambda _, name=name: WeightGrid(symmetric=symmetric, range_search=name),
        )[2]
        for name in ("hessian", "mse", "minmax")
    )
    ours, theirs = (expected(weight, codes, moments).sum() for codes in (found, least))
    assert ours <= theirs * 1.1
    assert errors(x, weight, found).sum() < 0.5 * errors(x, weight, whole).sum()


def test_each_of_many_outputs_finds_its_range_without_a_sweep():
    """One output has a weight that must not be clipped; all others are better off with less than the whole range."""
    _, layer, weight, _, moments = setting(300)
    weight = weight.copy()
    weight[3, 5] = 200 * weight.std()
    whole = {
        bits: find_steps(weight, bits, layer.axis, WeightGrid(range_search="minmax")) for bits in (2, 3, 8)
    }
    found = gptq(layer, weight, moments, [2, 3, 8], grid_of=lambda _: WeightGrid(range_search="hessian"))
    for bits in (2, 3):
        tried = []
        for share in (1, 0.9, 0.8, 0.7, 0.6, 0.5):
            given = drawn_in(whole[bits], WeightGrid(), share)
            swept = gptq(layer, weight, moments, [bits], given={bits: given})[bits]
            tried.append(expected(weight, swept, moments))
        ours = expected(weight, found[bits], moments)
        np.testing.assert_allclose(found[bits].scale[5], whole[bits].scale[5], rtol=1e-6)
        assert np.mean(found[bits].scale < 0.95 * whole[bits].scale) > 0.5
        assert ours.sum() < 1.25 * np.min(tried, axis=0).sum()
        assert ours.sum() < 0.5 * min(errors.sum() for errors in tried[1:])
    np.testing.assert_array_equal(found[8].scale, whole[8].scale)


def test_a_corrected_bias_takes_the_mean_off_the_codes():
    """With the mean error in the bias, codes need only keep what varies."""
    model, layer, weight, x, moments = setting(20, offset=30.0)
    bias = find_bias(model, layer)
    corrected = gptq(layer, weight, moments, [3], bias)[3]
    plain = gptq(layer, weight, moments, [3])[3]
    assert corrected.bias is not None

    def varying(rounded):
        return np.square((x - x.mean(0)) @ (rounded.dequantize() - weight)).sum()

    assert varying(corrected) < 0.9 * varying(plain)
    shift = corrected.bias.values - bias.values
    np.testing.assert_allclose(
        (x @ (corrected.dequantize() - weight) + shift).mean(0), 0, atol=1e-3 * np.abs(x @ weight).mean()
    )


def test_a_weight_is_laid_out_once_for_all_its_widths(monkeypatch):
    _, layer, weight, _, moments = setting(20)
    laid = []

    def counted(*given):
        laid.append(given)
        return to_scaled_rows(*given)

    monkeypatch.setattr("quant_core.quantizers.grids.weight.to_scaled_rows", counted)
    gptq(layer, weight, moments, [2, 3, 4, 8], grid_of=lambda _: WeightGrid(range_search="hessian"))
    assert len(laid) == 1
