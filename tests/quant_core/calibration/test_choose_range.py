"""Each range agrees with numpy on all values at once, with onnxruntime's calibrators, and with what its name says."""

from __future__ import annotations

import contextlib
import io
from typing import get_args

import numpy as np
import pytest
import torch
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy.stats import entropy

from quant_core.calibration import choose_range
from quant_core.calibration.activation_range import ActivationRange, measure, merge
from quant_core.calibration.entropy_range import entropy_range
from quant_core.calibration.percentile_range import percentile_range
from quant_core.spec import RangeMethod

METHODS = get_args(RangeMethod)
COUNT = 200_000


def draw(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    normal, laplace = rng.standard_normal(COUNT), rng.laplace(size=COUNT)
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "laplace": laplace,
        "quarters": np.round(laplace * 4) / 4,
        "swish": normal * 3 / (1 + np.exp(-normal * 3)),
        "negative": -np.abs(normal) - 0.5,
        "far": np.abs(normal) + 30,
    }[kind].astype(np.float32)


KINDS = ["normal", "relu", "laplace", "swish", "negative", "far"]


def stream(values: np.ndarray) -> ActivationRange:
    parts = [measure(torch.from_numpy(part)) for part in np.array_split(values, 7)]
    seen = parts[0]
    for part in parts[1:]:
        seen = merge(seen, part)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_that_of_all_values(kind):
    values = draw(kind)
    expected = (min(0.0, float(values.min())), max(0.0, float(values.max())))
    assert choose_range(stream(values), "minmax") == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_reach_twice_as_far_as_samples_did(kind, method):
    seen = stream(draw(kind))
    low, high = choose_range(seen, "minmax")
    assert choose_range(seen, method, 16) == (2 * low, 2 * high)


def test_sixteen_bits_that_one_value_uses_up_reach_no_further():
    values = np.append(draw("normal"), np.float32(1e4))
    assert choose_range(stream(values), "mse", 16) == (values.min(), values.max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clipped", [0.0, 1e-4, 0.02, 0.5])
def test_percentile_agrees_with_numpy_within_a_bin(kind, clipped):
    values, seen = draw(kind), stream(draw(kind))
    expected = np.quantile(values.astype(np.float64), [clipped / 2, 1 - clipped / 2])
    low, high = percentile_range(seen, clipped)
    assert low == pytest.approx(min(0.0, expected[0]), abs=seen.width)
    assert high == pytest.approx(max(0.0, expected[1]), abs=seen.width)


def test_percentile_of_hardly_any_values_clips_none():
    values = torch.zeros(1_000_000)
    values[7] = 2.5
    assert choose_range(measure(values), "percentile") == (0.0, 2.5)


def collector(method: str, values: np.ndarray, **options: float) -> tuple[float, float]:
    # onnxruntime prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        histogram = HistogramCollector(
            method=method, symmetric=method == "entropy", num_bins=2048, scenario="same", **options
        )
        histogram.collect({"x": [values]})
        low, high = histogram.compute_collection_result()["x"][:2]
    return float(low), float(high)


@pytest.mark.parametrize("kind", ["normal", "laplace", "swish"])
def test_percentile_agrees_with_onnxruntime(kind):
    values, seen = draw(kind), stream(draw(kind))
    theirs = collector("percentile", values, num_quantized_bins=256, percentile=99.9)
    width = seen.width + float(np.ptp(values)) / 2048
    assert percentile_range(seen, 1e-3) == pytest.approx(theirs, abs=2 * width)


def divergence(values: np.ndarray, low: float, high: float, width: float, levels: int) -> float:
    """Said again, over all values at once: clip, count, round each count to its group's mean over filled bins."""
    values = values[values != 0]
    edges = np.arange(round(low / width), round(high / width) + 1) * width
    clipped = np.histogram(np.clip(values, edges[0], np.nextafter(edges[-1], 0)), edges)[0]
    inside = np.histogram(values[(values >= edges[0]) & (values < edges[-1])], edges)[0]
    q = np.zeros(len(clipped))
    for level in range(levels):
        group = [i for i in range(len(clipped)) if i * levels // len(clipped) == level]
        filled = [i for i in group if clipped[i]]
        for i in filled:
            q[i] = max(inside[group].sum() / len(filled), 1e-4)
    return float(entropy(clipped[clipped > 0], q[clipped > 0]))


@pytest.mark.parametrize("kind", ["normal", "relu", "laplace", "quarters"])
def test_entropy_is_the_best_of_a_brute_force_search(kind):
    values, seen = draw(kind), stream(draw(kind))
    low, high = entropy_range(seen, levels=32)
    end = max(-low, high)

    def at(threshold: float) -> float:
        threshold = round(threshold / seen.width) * seen.width
        return divergence(values, 0.0 if kind == "relu" else -threshold, threshold, seen.width, 32)

    largest = float(np.abs(values).max())
    assert at(end) <= 1.05 * min(at(largest * i / 12) for i in range(2, 13)) + 1e-6


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_entropy_is_close_to_that_of_onnxruntime(kind):
    values = draw(kind)
    theirs = collector("entropy", values, num_quantized_bins=128, percentile=99.99)
    assert entropy_range(stream(values), levels=128) == pytest.approx(theirs, rel=0.25)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_ranges_hold_zero_and_lie_within_what_was_seen(method, kind):
    values = draw(kind)
    low, high = choose_range(stream(values), method)
    assert low <= 0 <= high
    assert low < high
    assert low >= min(0.0, float(values.min()))
    assert high <= max(0.0, float(values.max()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 3.7, -2.5])
def test_one_value(method, value):
    low, high = choose_range(measure(torch.full((5,), value)), method)
    assert low <= min(0.0, np.float32(value))
    assert max(0.0, np.float32(value)) <= high
    assert low < high
