"""Pairs of distance and excess: packed and read back for every arrangement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_core.codes.outliers import most_that_fit, pairs_for, pairs_needed, to_pairs


@st.composite
def excesses(draw):
    parameters = draw(st.integers(1, 5000))
    positions = sorted(draw(st.sets(st.integers(0, parameters - 1), max_size=40)))
    excess = np.zeros(parameters, dtype=np.int8)
    for position in positions:
        excess[position] = draw(st.sampled_from([-8, -3, -1, 1, 2, 7]))
    return excess


@given(excesses(), st.integers(0, 30))
def test_distances_add_up_to_positions(excess, spare):
    positions = np.flatnonzero(excess)
    pairs = max(1, pairs_needed(positions)) + spare
    distances, values = to_pairs(excess, pairs)
    assert distances.dtype == np.uint8
    assert len(distances) == len(values) == pairs
    read = np.zeros_like(excess)
    np.add.at(read, distances.astype(np.int64).cumsum(), values)  # as the file's operators do
    np.testing.assert_array_equal(read, excess)


@pytest.mark.parametrize(
    ("positions", "pairs"), [([], 0), ([0], 1), ([255], 1), ([256], 2), ([0, 255, 511], 4), ([1000], 4)]
)
def test_long_distances_take_pairs_in_between(positions, pairs):
    assert pairs_needed(np.array(positions, dtype=np.int64)) == pairs


@given(st.sets(st.integers(0, 4000), max_size=60), st.integers(1, 80), st.randoms())
def test_as_many_positions_are_taken_as_fit(positions, pairs, random):
    ranked = list(positions)
    random.shuffle(ranked)
    taken = most_that_fit(np.array(ranked, dtype=np.int64), pairs)
    assert pairs_needed(taken) <= pairs
    assert set(taken) == set(ranked[: len(taken)])
    if len(taken) < len(ranked):
        assert pairs_needed(np.sort(np.array(ranked[: len(taken) + 1], dtype=np.int64))) > pairs


def test_more_outliers_than_pairs_are_refused():
    excess = np.array([1, 1, 1], dtype=np.int8)
    with pytest.raises(ValueError, match="3 outliers take 3 pairs, and there are 2"):
        to_pairs(excess, 2)


def test_a_share_is_at_least_one_pair():
    assert pairs_for(0.01, 5) == 1
    assert pairs_for(0.01, 1000) == 10
