"""Tensors of few values get a grid that has a code for each; others keep the range that they would have."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from quant_core.calibration.activation_range import measure, merge
from quant_core.calibration.discrete_range import discrete_range
from quant_core.quantizers import activation_grid
from quant_core.quantizers.grids.activation import fake_quantize

KINDS = {
    "signs": [-1.0, 1.0],
    "signs and zero": [-1.0, 0.0, 1.0],
    "mask": [0.0, 1.0],
    "mask of large negatives": [-10000.0, 0.0],
    "digits": list(range(10)),
    "sixteenths": [place / 16 for place in range(64)],
    "thirds": [float(Fraction(place, 3)) for place in range(-4, 9)],
    "far from zero": [5.0, 7.0],
}


def tensor(values: list[float], count: int = 20_000) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).choice(values, count).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_has_a_code(kind):
    values = tensor(KINDS[kind])
    found = discrete_range(measure(values))
    assert found is not None
    grid = activation_grid(*found)
    np.testing.assert_allclose(fake_quantize(values, grid), values, rtol=1e-5, atol=1e-6)
    assert grid.low <= min(KINDS[kind]) + 1e-6
    assert grid.high >= max(KINDS[kind]) - 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_values_between_are_rounded_at_most_twice_as_coarsely(kind):
    span = max(*KINDS[kind], 0.0) - min(*KINDS[kind], 0.0)
    low, high = discrete_range(measure(tensor(KINDS[kind]))) or (0.0, 0.0)
    assert high - low <= 2 * span * (1 + 1e-6)


def test_signs_would_lie_half_a_step_off_between_their_extremes():
    values = tensor([-1.0, 0.0, 1.0])
    assert (fake_quantize(values, activation_grid(-1, 1)) - values).abs().max() > 0.003


def test_values_of_batches_are_put_together():
    seen = merge(measure(tensor([0.0, 1.0])), measure(tensor([-1.0, 0.0])))
    assert seen.values is not None
    assert seen.values.tolist() == [-1, 0, 1]
    assert merge(seen, measure(torch.randn(1000))).values is None
    assert merge(measure(torch.randn(1000)), seen).values is None


def test_more_than_64_values_are_not_few():
    few, more = measure(tensor(list(range(64)))), measure(tensor([64.0, 65.0]))
    assert few.values is not None
    assert more.values is not None
    assert merge(few, more).values is None
    assert measure(tensor(list(range(65)))).values is None


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(100),
        torch.randn(20_000, generator=torch.Generator().manual_seed(0)),
        torch.linspace(-1, 1, 40),  # each once: others may come between
        tensor([-1.0, 0.123, 0.377, 0.418, 0.555, 0.718, 0.831, 0.9173, 1.0, 0.2777, -0.6180]),
        torch.cat([torch.rand(5000) * 1e-3, torch.tensor([1.0])]),
    ],
    ids=["zeros", "normal", "seen once", "on no grid", "one far away"],
)
def test_other_tensors_have_none(values):
    assert discrete_range(measure(values)) is None
