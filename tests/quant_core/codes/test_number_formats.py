"""Minifloats against ml_dtypes and torch, which know nothing of this code."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.codes.number_formats import (
    code_values,
    half_from,
    half_nearest,
    nearest_code,
    positive_values,
)

ORACLES = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m1": ml_dtypes.float4_e2m1fn,
}


@pytest.mark.parametrize("element", ORACLES)
def test_every_code_stands_for_what_ml_dtypes_says(element):
    values = code_values(element)
    codes = np.arange(len(values), dtype=np.uint8)
    expected = codes.view(ORACLES[element]).astype(np.float32) if len(values) == 256 else None
    if expected is None:  # ml_dtypes keeps four bits in a byte of their own
        expected = np.array([np.uint8(code).view(ORACLES[element]).astype(np.float32) for code in codes])
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(values[finite], expected[finite])
    assert np.isnan(values[~finite]).all()
    assert finite.sum() == 2 * len(positive_values(element))


@pytest.mark.parametrize("element", ORACLES)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_nearest_codes_are_those_of_ml_dtypes(element, values):
    largest = positive_values(element)[-1]
    array = np.array(values, dtype=np.float32)
    clipped = array.clip(-largest, largest)
    np.testing.assert_array_equal(
        nearest_code(array, element), clipped.astype(ORACLES[element]).view(np.uint8)
    )


@pytest.mark.parametrize(("element", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_nearest_codes_are_those_of_torch(element, dtype):
    grid = positive_values(element)
    middles = (grid[:-1] + grid[1:]) / 2
    ties = np.concatenate([middles, np.nextafter(middles, 0), np.nextafter(middles, np.inf), -middles])
    expected = torch.from_numpy(ties).to(dtype).view(torch.uint8).numpy()
    np.testing.assert_array_equal(nearest_code(ties, element), expected)


HALVES = (
    np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
)  # all finite ones that are not below 0


def test_halves_are_taken_away_from_zero():
    rng = np.random.default_rng(0)
    values = np.exp(rng.uniform(np.log(1e-9), np.log(6e4), 2000)).astype(np.float32)
    values = np.concatenate([values, HALVES, [65504.0]]).astype(np.float32)
    expected = HALVES[np.searchsorted(HALVES, values)]  # the first that is not smaller
    np.testing.assert_array_equal(half_from(values), expected)
    np.testing.assert_array_equal(half_from(-values), -expected)
    normal = values >= np.finfo(np.float16).smallest_normal  # these alone are rounded by their bits
    np.testing.assert_array_equal(half_from(values[normal]), expected[normal])
    np.testing.assert_array_equal(half_from(-values[normal]), -expected[normal])
    assert half_from(np.float32([65505.0, 1e9])).tolist() == [65505.0, 1e9]


def test_small_numbers_become_halves_only_beside_much_larger_ones():
    small = np.float32([1e-9, -1e-7, 2e-6])  # the halves above them are 60, 1.19 and 1.01 times as large
    np.testing.assert_array_equal(half_from(small), small)
    beside = half_from(np.float32([*small, 1.0]))
    assert (beside == beside.astype(np.float16)).all()
    assert beside.tolist() == [2.0**-24, -(2.0**-23), *half_from(np.float32([2e-6, 1.0])).tolist()]


def test_what_is_nearly_as_good_in_halves_is_taken_to_them():
    values = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    found = half_nearest(values)
    np.testing.assert_array_equal(found, values.astype(np.float16))
    assert np.linalg.norm(found - values) < 1e-3 * np.linalg.norm(values)
    dead = np.float32([1e-30, 0.3, -2.0])  # next to nothing beside the others is nothing
    np.testing.assert_array_equal(half_nearest(dead), dead.astype(np.float16))
    for other in (values * 1e-7, values * 1e6):  # too small, too large
        np.testing.assert_array_equal(half_nearest(other), other)
