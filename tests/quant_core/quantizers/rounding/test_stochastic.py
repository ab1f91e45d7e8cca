from dataclasses import replace

import numpy as np
import pytest
import torch

from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding.stochastic import round_stochastically
from quant_core.spec.weight_grid import WeightGrid

GRIDS = {
    "int": (3, WeightGrid(range_search="minmax")),
    "asymmetric": (3, WeightGrid("block", 16, symmetric=False, range_search="minmax")),
    "nvfp4": (4, WeightGrid("block", 16, format="nvfp4", range_search="minmax")),
    "mxfp4": (4, WeightGrid("block", 32, format="mxfp4", range_search="minmax")),
    "fp8": (8, WeightGrid(format="fp8_e4m3", range_search="minmax")),
}
DRAWS = 600


def weights():
    return (np.random.default_rng(0).standard_normal((8, 64)) * 0.1 + 0.02).astype(np.float32)


def drawn(weight, start, seed):
    return round_stochastically(weight, start, torch.Generator().manual_seed(seed)).dequantize()


@pytest.mark.parametrize("name", GRIDS)
def test_the_mean_is_the_weight_within_its_standard_error(name):
    weight, (bits, grid) = weights(), GRIDS[name]
    start = quantize_weight(weight, bits, 0, grid)
    draws = np.stack([drawn(weight, start, seed) for seed in range(DRAWS)]).astype(np.float64)
    low, high = draws.min(0), draws.max(0)
    inside = (low < weight) & (weight < high)  # neither on the grid nor beyond its end
    assert inside.mean() > 0.8
    share = np.where(inside, weight - low, 0.5) / np.where(inside, high - low, 1)
    stderr = (high - low) * np.sqrt(share * (1 - share) / DRAWS)
    z = ((draws.mean(0) - weight) / np.where(inside, stderr, 1))[inside]
    assert np.abs(z).max() < 5
    assert 0.8 < (z**2).mean() < 1.2  # of variance 1 over some 450 weights
    assert abs(z.mean()) < 5 / np.sqrt(len(z))


@pytest.mark.parametrize("name", GRIDS)
def test_only_neighbours_are_drawn_and_seeds_repeat(name):
    weight, (bits, grid) = weights(), GRIDS[name]
    start = quantize_weight(weight, bits, 0, grid)
    first, again, other = drawn(weight, start, 0), drawn(weight, start, 0), drawn(weight, start, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    if name == "int":  # a step of 1, so that division gives back what is on the grid
        codes = start.codes.astype(np.float32)
        unit = replace(start, scale=np.ones_like(start.scale))
        np.testing.assert_array_equal(drawn(codes, unit, 3), codes)
    step = np.broadcast_to(start.spread(start.scale), weight.shape)
    widest = {"int": 1, "asymmetric": 1, "nvfp4": 2, "mxfp4": 2, "fp8": 32}[name]
    inside = np.abs(weight) <= 6 * step if name in {"nvfp4", "mxfp4"} else np.ones_like(weight, bool)
    assert (np.abs(first - weight)[inside] <= (widest * step)[inside] * (1 + 1e-5)).all()
