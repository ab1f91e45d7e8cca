"""Histograms count every value once, whatever the batches, and the chosen range is close to the best one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.calibration import search_range
from quant_core.calibration.activation_range import BINS, measure, merge


def _draw(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(50_000, generator=generator)
    return {
        "normal": normal,
        "relu": normal.relu(),
        "relu6": (normal * 4).clamp(0, 6),
        "shifted": normal + 7,
        "negative": -normal.abs() - 1,
        "heavy": normal**3,
        "outlier": torch.cat([normal, torch.tensor([60.0])]),
        "tiny": normal * 1e-20,
        "huge": normal * 1e30,
        "mostly zero": torch.where(normal > 1.5, normal, 0),
        "one value": torch.full((100,), 3.7),
        "integers": normal.mul(20).round(),
        "sliver": 1000 + normal * 1e-4,
    }[kind]


KINDS = [
    "normal",
    "relu",
    "relu6",
    "shifted",
    "negative",
    "heavy",
    "outlier",
    "tiny",
    "huge",
    "mostly zero",
    "one value",
    "integers",
    "sliver",
]


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_agrees_with_numpy(kind):
    values = _draw(kind)
    seen = measure(values)
    expected, _ = np.histogram(values.double().numpy(), seen.edges)
    np.testing.assert_array_equal(seen.counts, expected)
    assert seen.count == values.numel()
    assert (seen.minimum, seen.maximum) == (float(values.min()), float(values.max()))
    assert seen.zeros == int((values == 0).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [2, 7])
def test_batches_and_their_order_do_not_matter(kind, pieces):
    values = _draw(kind)
    parts = [measure(part) for part in values.tensor_split(pieces)]
    forward, backward = parts[0], parts[-1]
    for part in parts[1:]:
        forward = merge(forward, part)
    for part in reversed(parts[:-1]):
        backward = merge(backward, part)
    for merged in (forward, backward):
        whole = measure(values)
        np.testing.assert_array_equal(merged.counts, whole.counts)
        assert (merged.origin, merged.width) == (whole.origin, whole.width)
        assert (merged.minimum, merged.maximum, merged.zeros) == (whole.minimum, whole.maximum, whole.zeros)


@pytest.mark.parametrize("far", [1e20, -3e38])
def test_a_value_far_from_all_others_is_counted(far):
    near, away = _draw("normal"), torch.tensor([far])
    merged, whole = merge(measure(near), measure(away)), measure(torch.cat([near, away]))
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert (merged.origin, merged.width) == (whole.origin, whole.width)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20))
def test_any_values_fit(numbers):
    seen = measure(torch.tensor(numbers))
    assert seen.counts.shape == (BINS,)
    assert seen.count == len(numbers)
    assert seen.edges[0] <= seen.minimum
    assert seen.maximum < seen.edges[-1]


def _rounding_error(values: torch.Tensor, low: float, high: float) -> float:
    step = (high - low) / 255
    zero_point = round(-low / step)
    codes = (torch.round(values.double() / step) + zero_point).clamp(0, 255)
    return float(((codes - zero_point) * step - values.double()).square().mean())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"one value", "integers"}])
def test_range_is_close_to_the_best_of_a_brute_force_search(kind):
    values = _draw(kind)
    low, high = search_range(measure(values))
    assert low <= 0 <= high
    smallest, largest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    best = min(
        _rounding_error(values, smallest * i / 25, largest * j / 25)
        for i in range(26)
        for j in range(26)
        if smallest * i != largest * j
    )
    assert _rounding_error(values, low, high) <= 1.03 * best


def test_outlier_is_clipped_when_bits_are_few():
    seen = measure(_draw("outlier"))
    assert search_range(seen, levels=16)[1] < 30
    assert search_range(seen, levels=2**16)[1] > 55


def test_only_zeros():
    low, high = search_range(measure(torch.zeros(10)))
    assert low == 0 < high


@pytest.mark.parametrize("value", [3.7, -2.5])
def test_one_value_is_exact(value):
    low, high = search_range(measure(torch.full((5,), value)))
    assert _rounding_error(torch.full((5,), value), low, high) < 1e-12


@pytest.mark.parametrize("size", [1e-36, 1.0, 1e30])
def test_layout_and_precision_make_no_difference(size):
    values = torch.randn(3, 5, 7, 4, generator=torch.Generator().manual_seed(0)).relu() * size
    plain = measure(values)
    for other in (values.contiguous(memory_format=torch.channels_last), values.double()):
        found = measure(other)
        np.testing.assert_array_equal(found.counts, plain.counts)
        assert (found.minimum, found.maximum, found.zeros) == (plain.minimum, plain.maximum, plain.zeros)
        assert (found.origin, found.width) == (plain.origin, plain.width)
    assert plain.zeros == int((values == 0).sum())
