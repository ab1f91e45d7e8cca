import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_core.errors import SpecError
from quant_core.quantizers import QuantizedWeight, code_range, quantize_weight, round_to_nearest
from quant_core.quantizers.grids.weight import ScaledRows, find_steps, with_steps_of
from quant_core.spec.weight_grid import WeightGrid


def squared_error(weight, quantized):
    return float(np.square(weight - quantized.dequantize()).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_search_is_as_good_as_a_fine_grid_of_scales(bits):
    row = np.random.default_rng(bits).standard_normal((1, 200)).astype(np.float32)
    low, high = code_range(bits)
    full = max(row.max() / high, row.min() / low)
    best = min(
        float(np.square(row - s * np.clip(np.round(row / s), low, high)).sum())
        for s in np.linspace(full * 0.02, full, 4000)
    )
    assert squared_error(row, quantize_weight(row, bits, 0)) <= best * 1.02


@pytest.mark.parametrize("size", [1e-5, 1e-7, 1e-9])
def test_small_weights_lose_no_more_than_large_ones(size):
    weight = np.random.default_rng(0).standard_normal((8, 200)).astype(np.float32)
    small = (weight * size).astype(np.float32)
    for bits in (4, 8):
        share = squared_error(weight, quantize_weight(weight, bits, 0)) / np.square(weight).sum()
        assert squared_error(small, quantize_weight(small, bits, 0)) < 1.05 * share * np.square(small).sum()


def test_codes_stay_in_range_and_errors_fall_with_bits():
    weight = np.random.default_rng(0).standard_t(3, (16, 3, 3, 3)).astype(np.float32)
    errors = []
    for bits in (2, 3, 4, 5, 6, 8):
        quantized = quantize_weight(weight, bits, 0)
        low, high = code_range(bits)
        assert quantized.codes.dtype == np.int8
        assert quantized.codes.min() >= low
        assert quantized.codes.max() <= high
        assert quantized.scale.shape == (16,)
        errors.append(squared_error(weight, quantized))
    assert errors == sorted(errors, reverse=True)


def test_channel_axis_is_that_of_the_transposed_weight():
    weight = np.random.default_rng(1).standard_normal((5, 7, 2)).astype(np.float32)
    moved = np.ascontiguousarray(np.moveaxis(weight, 1, 0))
    along_one, along_zero = quantize_weight(weight, 4, 1), quantize_weight(moved, 4, 0)
    np.testing.assert_array_equal(np.moveaxis(along_one.codes, 1, 0), along_zero.codes)
    np.testing.assert_array_equal(along_one.scale, along_zero.scale)


def test_per_channel_beats_per_tensor_when_channels_differ():
    weight = np.random.default_rng(2).standard_normal((8, 50)).astype(np.float32)
    weight *= np.logspace(-2, 1, 8, dtype=np.float32)[:, None]
    shared = quantize_weight(weight, 4, None)
    assert shared.scale.shape == ()
    assert squared_error(weight, quantize_weight(weight, 4, 0)) < squared_error(weight, shared) / 3


def test_a_channel_of_zeros_borrows_a_sensible_scale():
    weight = np.random.default_rng(3).standard_normal((4, 30)).astype(np.float32)
    weight[2] = 0
    quantized = quantize_weight(weight, 3, 0)
    assert not quantized.codes[2].any()
    assert quantized.scale[2] in np.delete(quantized.scale, 2)
    everything = quantize_weight(np.zeros((2, 3), dtype=np.float32), 3, 0)
    assert np.isfinite(everything.scale).all()
    assert (everything.scale > 0).all()


def test_outliers_are_clipped_at_two_bits():
    row = np.concatenate([np.tile([-1.0, 1.0], 100), [5.0]]).astype(np.float32)[None]
    assert quantize_weight(row, 2, 0).scale[0] < 1.5


@given(
    st.integers(2, 8).filter(lambda b: b != 7),
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
)
def test_values_on_the_grid_come_back_exactly(bits, values):
    low, high = code_range(bits)
    codes = np.clip(np.round(np.array(values, dtype=np.float32)), low, high)
    start = QuantizedWeight(codes.astype(np.int8), np.array(0.5, dtype=np.float32), None, bits)
    quantized = round_to_nearest(codes * 0.5, start)
    np.testing.assert_array_equal(quantized.codes, codes)
    np.testing.assert_array_equal(quantized.dequantize(), codes * 0.5)


@pytest.mark.parametrize("bits", [1, 9, 32])
def test_widths_that_do_not_exist_are_refused(bits):
    with pytest.raises(SpecError, match="2 to 8"):
        quantize_weight(np.ones((2, 2), dtype=np.float32), bits, 0)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_some_weights_of_each_row_are_enough_to_find_its_scale(bits):
    weight = np.random.default_rng(5).standard_normal((6, 4000)).astype(np.float32)
    weight[:, 13] = 9  # far out, and in none of the drawn places
    whole = quantize_weight(weight, bits, 0)
    some = round_to_nearest(weight, find_steps(weight, bits, 0, most=500))
    assert squared_error(weight, some) <= squared_error(weight, whole) * 1.05
    full = find_steps(weight, bits, 0, WeightGrid(range_search="minmax"), most=500)
    exact = np.full(6, 9 / code_range(bits)[1])
    np.testing.assert_allclose(full.scale, exact, rtol=1e-3)
    assert (full.scale >= np.float32(exact)).all()  # taken to float16 upwards


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_of_some_rows_are_searched_and_the_others_stay(symmetric):
    weight = np.random.default_rng(0).standard_normal((6, 300)).astype(np.float32)
    weight[[1, 4], 7] = 20
    whole = WeightGrid(range_search="minmax", symmetric=symmetric)
    least = WeightGrid(range_search="mse", symmetric=symmetric)
    laid = ScaledRows.of(weight, 0, least)
    chosen = laid.beyond(4.5)
    assert chosen.tolist() == [False, True, False, False, True, False]
    start, expected = find_steps(weight, 4, 0, whole), find_steps(weight, 4, 0, least)
    found = with_steps_of(start, least, laid, chosen)
    searched = chosen.numpy()
    np.testing.assert_array_equal(found.scale, np.where(searched, expected.scale, start.scale))
    if not symmetric:
        np.testing.assert_array_equal(
            found.zero_point, np.where(searched, expected.zero_point, start.zero_point)
        )
    assert not np.array_equal(start.scale[searched], expected.scale[searched])
    assert with_steps_of(start, least, laid, laid.beyond(100)) is start
    zeros = ScaledRows.of(np.zeros((2, 3), np.float32), 0, least)
    assert not zeros.beyond(0).any()
