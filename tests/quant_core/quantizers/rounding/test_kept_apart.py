"""Outliers: chosen where clipping costs most, rounded by GPTQ with the others, never worse than promised."""

from dataclasses import replace

import numpy as np
import pytest

from quant_core.codes.outliers import SPARSE_BITS, pairs_for, pairs_needed
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding.coordinate_descent import descend
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.quantizers.rounding.kept_apart import narrowed
from quant_core.spec.weight_grid import WeightGrid
from quant_core.spec.width import width_of
from tests.quant_core.quantizers.rounding.layers import CASES, build, moments_of, output_error

SHARE = 0.04


def heavy_tailed(shape, seed=3):
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


@pytest.mark.parametrize("improve", [None, descend], ids=["gptq", "descent"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_codes_keep_to_their_limits_and_pairs(case, symmetric, improve):
    _, layer, weight, _ = build(*CASES[case])
    weight = heavy_tailed(weight.shape)
    grid = WeightGrid(symmetric=symmetric, range_search="hessian")
    widths = [width_of(bits, None, SHARE) for bits in SPARSE_BITS]
    rounded = gptq(layer, weight, moments_of(layer), widths, grid_of=lambda _: grid, improve=improve)
    for width in widths:
        found = rounded[width]
        assert found.outliers.pairs == pairs_for(SHARE, weight.size)
        assert pairs_needed(np.flatnonzero(found.codes != found.dense_codes())) <= found.outliers.pairs
        low, high = found.code_limits()
        assert (found.codes >= low).all()
        assert (found.codes <= high).all()
        # The limits are those of b bits everywhere but at the outliers.
        assert set(np.flatnonzero(high > high.min())) == set(found.outliers.positions)


def test_what_outliers_leave_is_measured_and_less():
    _, layer, _, _ = build("Gemm", (12, 40), (24, 40), {"transB": 1})
    weight, moments = heavy_tailed((24, 40)), moments_of(layer)
    grid = WeightGrid(range_search="hessian")
    widths = [width_of(bits, None, SHARE) for bits in SPARSE_BITS]
    rounded = gptq(layer, weight, moments, widths, grid_of=lambda _: grid)
    second = moments.shrunk()
    for bits, width in zip(SPARSE_BITS, widths, strict=True):
        errors = [output_error(layer, weight, rounded[key], second) for key in (width, bits)]
        assert rounded[width].outliers.left == pytest.approx(errors[0] / errors[1], rel=1e-3)
        # Eight steps more are a smaller part of the range, the more bits there are.
        assert rounded[width].outliers.left < (0.6 if bits <= 4 else 0.75)


def test_bits_without_outliers_are_as_if_nobody_asked():
    _, layer, weight, _ = build(*CASES["conv"])
    moments = moments_of(layer)
    alone = gptq(layer, weight, moments, [2, 4])
    beside = gptq(layer, weight, moments, [2, 4, width_of(4, None, SHARE)])
    for bits in (2, 4):
        np.testing.assert_array_equal(alone[bits].codes, beside[bits].codes)
        np.testing.assert_array_equal(alone[bits].scale, beside[bits].scale)


def test_independent_inputs_keep_the_weights_that_lie_furthest_beyond():
    weight = np.random.default_rng(0).uniform(-1, 1, (6, 50)).astype(np.float32)
    places = [(0, 3), (1, 40), (4, 7), (5, 49)]
    for place in places:
        weight[place] = 2.0
    dense = quantize_weight(weight, 4, None)
    (start, *_) = narrowed(weight, replace(dense, scale=np.float32(1 / 7)), 4 / 300, WeightGrid(), np.ones(1))
    assert start.outliers.pairs == 4
    wanted = [np.ravel_multi_index(place, weight.shape) for place in places]
    assert set(start.outliers.positions) <= set(wanted)
    assert len(start.outliers.positions) >= 3  # one may not fit: distances above 255 take two pairs
    dear = np.ones(weight.shape, dtype=np.float32)
    dear[4] = 1e6
    (start, *_) = narrowed(weight, replace(dense, scale=np.float32(1 / 7)), 2 / 300, WeightGrid(), dear)
    assert np.ravel_multi_index((4, 7), weight.shape) in start.outliers.positions


def test_a_weight_of_zeros_has_nothing_to_keep():
    _, layer, _, _ = build(*CASES["gemm"])
    width = width_of(3, None, SHARE)
    found = gptq(layer, np.zeros((5, 7), np.float32), moments_of(layer), [width])[width]
    assert found.outliers.positions.size == 0
    assert found.outliers.left == 1.0
    assert not found.dequantize().any()
