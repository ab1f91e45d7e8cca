"""A split keeps every sample once, in order, and is the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_core.calibration import Samples, split_samples
from quant_core.errors import SamplesError


def _samples(count: int, batch: int | None = None) -> Samples:
    return Samples({"x": np.arange(count), "z": np.arange(count) * 10}, np.arange(count) % 3, batch)


@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 2**63 - 1))
def test_every_sample_once_and_in_order(count, share, seed):
    first, second = split_samples(_samples(count), share, seed)
    assert first.count >= 1
    assert second.count >= 1
    assert abs(second.count - share * count) <= 1
    for part in (first, second):
        assert (np.diff(part.inputs["x"]) > 0).all()
        np.testing.assert_array_equal(part.inputs["z"], part.inputs["x"] * 10)
        np.testing.assert_array_equal(part.labels, part.inputs["x"] % 3)
    together = np.concatenate([first.inputs["x"], second.inputs["x"]])
    np.testing.assert_array_equal(np.sort(together), np.arange(count))


def test_parts_join_to_all_samples_again():
    first, second = split_samples(_samples(9, 3), 0.5, 0)
    joined = second.joined(first)
    order = np.argsort(joined.inputs["x"])
    np.testing.assert_array_equal(joined.inputs["z"][order], np.arange(9) * 10)
    np.testing.assert_array_equal(joined.labels[order], np.arange(9) % 3)
    assert joined.batch == 3


def test_seed_decides():
    once, again, other = (split_samples(_samples(100), 0.25, seed)[1].inputs["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_whole_batches_where_the_graph_demands_them():
    first, second = split_samples(_samples(12, batch=4), 0.25, 0)
    assert (first.count, second.count) == (8, 4)
    assert (second.inputs["x"] // 4 == second.inputs["x"][0] // 4).all()
    assert first.batch == 4


@pytest.mark.parametrize(("count", "batch"), [(1, None), (4, 4)])
def test_too_few(count, batch):
    with pytest.raises(SamplesError, match=f"at least {2 * (batch or 1)}"):
        split_samples(_samples(count, batch), 0.25, 0)


def test_batches_cover_everything():
    batches = list(_samples(10).batches(4))
    assert [batch.count for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch.inputs["x"] for batch in batches]), np.arange(10))
