"""Trellis codes: one step back for each step there, for every number of outputs and every width."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.codes import NarrowChannels, QuantizedWeight
from quant_core.codes.trellis import TRELLIS_BITS, stride_of, trellis_codes, trellis_values


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(TRELLIS_BITS),
    outputs=st.integers(1, 200),
    others=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    place=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_lead_back_to_their_codes(bits, outputs, others, place, seed):
    axis, half = min(place, len(others)), 1 << (bits - 1)
    shape = (*others[:axis], outputs, *others[axis:])
    codes = np.random.default_rng(seed).integers(-half, half, shape).astype(np.int8)
    values = trellis_values(codes, axis)
    assert (values.dtype, values.shape) == (np.int8, shape)
    assert -2 * half <= values.min() <= values.max() < 2 * half
    np.testing.assert_array_equal(trellis_codes(values, axis), codes)


def test_every_state_leaves_half_of_the_values():
    followed = {}
    for codes in itertools.product((-2, -1, 0, 1), repeat=4):
        value = int(trellis_values(np.array([*codes, *[0] * 4], np.int8), 0)[3])
        followed.setdefault(tuple(code & 1 for code in codes[:3]), set()).add(value)
    assert len(followed) == 8
    assert {frozenset(values) for values in followed.values()} == {
        frozenset({-4, -2, 0, 2}),
        frozenset({-3, -1, 1, 3}),
    }


def test_values_that_no_path_leads_through_are_refused():
    with pytest.raises(ValueError, match="no path"):
        trellis_codes(np.ones(16, np.int8), 0)


def test_paths_have_32_codes_at_most():
    assert [stride_of(outputs) for outputs in (8, 32, 33, 64, 1000)] == [1, 1, 2, 2, 32]


def test_a_weight_stores_codes_of_its_bits_also_where_channels_have_two_widths():
    rng = np.random.default_rng(0)
    few = np.arange(40) % 3 == 0
    codes = rng.integers(-16, 16, (40, 6)).astype(np.int8)
    codes[few] = rng.integers(-4, 4, (int(few.sum()), 6))
    weight = QuantizedWeight(
        trellis_values(codes, 0), np.ones(40, np.float32), 0, 5, narrow=NarrowChannels(3, few), trellis=True
    )
    np.testing.assert_array_equal(weight.dense_codes(), codes)
    low, high = weight.code_limits()
    assert (weight.codes >= low).all()
    assert (weight.codes <= high).all()
    assert {int(low[0, 0]), int(low[1, 0])} == {-8, -32}
    full = weight.in_full()
    assert (full.bits, full.narrow.bits, full.trellis) == (6, 4, False)
    np.testing.assert_array_equal(full.dense_codes(), weight.codes)
    assert full.in_full() is full
