"""The range that changes the outputs least, from errors that are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quant_core.calibration.activation_range import ActivationRange, measure
from quant_core.calibration.output_range import SHARES, OutputErrors, output_range
from quant_core.calibration.search_range import search_range

SAMPLES, EACH = 12, 4000


def drawn() -> tuple[ActivationRange, np.ndarray]:
    values = np.random.default_rng(0).standard_normal((SAMPLES, EACH)).astype(np.float32)
    return measure(torch.from_numpy(values)), values.astype(np.float64)


def errors(seen: ActivationRange, values: np.ndarray, coherent: float) -> OutputErrors:
    """Errors where every slope is 1; clipping adds up by a share of all there is, else at random."""
    sign = np.random.default_rng(1).choice([-1.0, 1.0], values.shape)
    slope = coherent + (1 - coherent) * sign

    def clipped(end: float) -> np.ndarray:
        ends = SHARES * end
        beyond = [(slope * np.clip((e - values) * np.sign(end), None, 0) * np.sign(end)).sum(1) for e in ends]
        return np.stack(beyond, 1)[:, None]

    rounded = (slope**2).sum(1)
    return OutputErrors(rounded, clipped(seen.minimum), clipped(seen.maximum), values.min(1), values.max(1))


def test_clipping_that_adds_up_is_avoided():
    seen, values = drawn()
    low, high = output_range(seen, errors(seen, values, 1.0), levels=16)
    plain = search_range(seen, levels=16)
    assert high > 1.15 * plain[1]
    assert low < 1.15 * plain[0]


def test_clipping_at_random_costs_as_much_as_its_square():
    seen, values = drawn()
    found = output_range(seen, errors(seen, values, 0.0))
    assert found == pytest.approx(search_range(seen), rel=0.15)


def of_population(count: int, seed: int, limit: float = np.inf) -> np.ndarray:
    """Samples of one kind under gains that differ."""
    rng = np.random.default_rng(seed)
    gains = np.exp(0.4 * rng.standard_normal((count, 1)))
    return np.minimum(gains * np.abs(rng.standard_normal((count, 500))), limit)


def lost(values: np.ndarray, high: float) -> float:
    """Mean square of the sum of all errors of samples: those of rounding are independent."""
    return EACH * (high / 255) ** 2 / 12 + float((np.maximum(values - high, 0).sum(1) ** 2).mean())


@pytest.mark.parametrize("count", [6, 16, 48])
def test_samples_that_were_not_seen_lose_less_than_by_what_was_seen(count):
    others = of_population(4000, 1000)
    gains = []
    for seed in range(12):
        values = of_population(count, seed)
        seen = measure(torch.from_numpy(values))
        ends = output_range(seen, errors(seen, values, 1.0))[1], seen.maximum, search_range(seen)[1]
        ours, *theirs = (10 * np.log10(lost(others, high)) for high in ends)
        gains.append(min(theirs) - ours)
    assert np.mean(gains) > 1
    assert min(gains) > -3


def test_what_is_limited_reaches_no_further():
    values = of_population(16, 0, limit=1.5)
    seen = measure(torch.from_numpy(values))
    assert output_range(seen, errors(seen, values, 1.0))[1] == pytest.approx(1.5, rel=0.05)


def test_a_sample_of_next_to_nothing_does_not_widen_the_range():
    values = of_population(16, 0)
    values[3] *= 1e-9
    seen = measure(torch.from_numpy(values))
    silent = output_range(seen, errors(seen, values, 1.0))[1]
    values = np.delete(values, 3, 0)
    seen = measure(torch.from_numpy(values))
    assert silent == pytest.approx(output_range(seen, errors(seen, values, 1.0))[1], rel=0.15)


def test_one_sample_far_out_that_matters_to_no_output_is_clipped():
    seen, values = drawn()
    values[3, 0] = 40.0
    seen = measure(torch.from_numpy(values).float())
    found = errors(seen, values, 1.0)
    found.above[3] = 0.0
    assert output_range(seen, found)[1] < 0.3 * 40


def test_ends_lie_beyond_the_extremes_where_samples_reach_unequally_far():
    seen, values = drawn()
    found = errors(seen, values, 1.0)
    alike = replace(found, lows=np.full(SAMPLES, seen.minimum), highs=np.full(SAMPLES, seen.maximum))
    assert output_range(seen, alike)[1] <= seen.maximum
    apart = replace(alike, highs=seen.maximum * np.linspace(0.3, 1, SAMPLES))
    low, high = output_range(seen, apart)
    assert high > seen.maximum
    assert low >= seen.minimum


@pytest.mark.parametrize("value", [0.0, 3.7, -2.5])
def test_one_value(value):
    seen = measure(torch.full((5,), value))
    ends = np.full(1, value)
    found = OutputErrors(np.ones(1), np.zeros((1, 1, len(SHARES))), np.zeros((1, 1, len(SHARES))), ends, ends)
    low, high = output_range(seen, found)
    assert low <= 0 <= high
    assert low < high


def test_a_sample_that_stands_for_three_counts_as_three():
    seen, values = drawn()
    times = np.arange(SAMPLES) % 3 + 1
    few, all_of_them = errors(seen, values, 1.0), errors(seen, values.repeat(times, axis=0), 1.0)
    assert output_range(seen, few.repeated(times), levels=16) == output_range(seen, all_of_them, levels=16)
    assert output_range(seen, few.repeated(times), levels=16) != output_range(seen, few, levels=16)
    whole = replace(few, rounded=few.rounded[:1])
    assert whole.repeated(times) is whole
