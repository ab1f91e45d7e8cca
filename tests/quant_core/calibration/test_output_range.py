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
    low, high = output_range(seen, errors(seen, values, 1.0))
    plain = search_range(seen)
    assert high > 1.05 * plain[1]
    assert low < 1.05 * plain[0]
    assert high <= seen.maximum
    assert low >= seen.minimum


def test_what_promises_little_leaves_the_range_of_least_error():
    seen, values = drawn()
    found = errors(seen, values, 0.0)
    found.below[:] *= 0.5**0.5  # what is clipped counts twice as much as by squared error
    found.above[:] *= 0.5**0.5
    assert output_range(seen, found) == search_range(seen)


def test_one_sample_far_out_that_matters_to_no_output_is_clipped():
    seen, values = drawn()
    values[3, 0] = 40.0
    seen = measure(torch.from_numpy(values).float())
    found = errors(seen, values, 1.0)
    found.above[3] = 0.0
    assert output_range(seen, found)[1] < 0.3 * 40


@pytest.mark.parametrize("by_batches", [1.0, 1 + 1e-6])
def test_a_sample_that_alone_reaches_the_extreme_counts_as_one_not_seen(by_batches):
    """The end that just holds it would clip others as far beyond what was seen."""
    seen, values = drawn()
    seen = replace(seen, maximum=seen.maximum * by_batches)
    found = errors(seen, values, 1.0)
    top = int(values.max(1).argmax())
    found.above[:] = 0.0
    found.above[top] = 1.4 * (1 - SHARES)
    others = float(np.delete(values.max(1), top).max())
    costs = [
        found,
        OutputErrors(found.rounded, found.below, found.above, found.lows, np.full(SAMPLES, others)),
    ]
    unseen, known = (output_range(seen, each)[1] for each in costs)
    assert unseen > known


@pytest.mark.parametrize("value", [0.0, 3.7, -2.5])
def test_one_value(value):
    seen = measure(torch.full((5,), value))
    ends = np.full(1, value)
    found = OutputErrors(np.ones(1), np.zeros((1, 1, len(SHARES))), np.zeros((1, 1, len(SHARES))), ends, ends)
    low, high = output_range(seen, found)
    assert low <= 0 <= high
    assert low < high
