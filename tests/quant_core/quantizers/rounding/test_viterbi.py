"""Viterbi's search against all paths there are."""

import itertools

import numpy as np
import pytest

from quant_core.codes import NarrowChannels, QuantizedWeight
from quant_core.codes.trellis import trellis_codes, trellis_values
from quant_core.quantizers.rounding import viterbi
from quant_core.quantizers.rounding.viterbi import PathGrid, halves_of


@pytest.mark.parametrize("bits", [2, 3])
def test_no_path_comes_nearer(bits):
    rng = np.random.default_rng(0)
    half = 1 << (bits - 1)
    codes = np.array(list(itertools.product(range(-half, half), repeat=5)), np.int8)
    every = trellis_values(codes, 1).astype(np.float32)
    for _ in range(10):
        steps = (rng.uniform(0.5, 2, (1, 5)) * rng.choice([-1, 1], (1, 5))).astype(np.float32)
        grid = PathGrid(steps, np.full(5, 2.0**bits, np.float32))
        wanted = rng.normal(0, 2 * half, (1, 5)).astype(np.float32)
        least = np.square((every - wanted) * steps).sum(1).min()
        found = grid.values(wanted)
        assert np.square((found - wanted) * steps).sum() == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize("outputs", [8, 31, 32, 33, 97, 256])
def test_every_value_lies_on_a_path_within_its_limits(outputs, monkeypatch):
    rng = np.random.default_rng(outputs)
    few = rng.random(outputs) < 0.4
    weight = QuantizedWeight(
        np.zeros((outputs, 1), np.int8), np.ones(outputs, np.float32), 0, 4, narrow=NarrowChannels(2, few)
    )
    halves = halves_of(weight, outputs)
    steps = rng.uniform(0.5, 2, (1, outputs)).astype(np.float32)
    wanted = rng.normal(0, 9, (300, outputs)).astype(np.float32)
    found = PathGrid(steps, halves).values(wanted)
    stored = trellis_codes(found.astype(np.int8), 1)
    assert (np.abs(stored + 0.5) < halves / 2).all()
    assert (found >= -halves).all()
    assert (found < halves).all()
    monkeypatch.setattr(viterbi, "_CHUNK", 64)
    np.testing.assert_array_equal(PathGrid(steps, halves).values(wanted), found)


def test_values_on_paths_stay_what_they_are():
    codes = np.random.default_rng(1).integers(-4, 4, (50, 40)).astype(np.int8)
    values = trellis_values(codes, 1).astype(np.float32)
    grid = PathGrid(np.ones((1, 40), np.float32), np.full(40, 8, np.float32))
    np.testing.assert_array_equal(grid.values(values), values)
