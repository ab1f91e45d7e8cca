from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from quant_core.verification import MetricAccumulator
from quant_core.verification.intervals import change_interval, mean_interval, share_interval


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (5, 5), (92, 100), (9208, 10000), (1, 2)])
def test_shares_have_scipys_wilson_interval(hits, trials):
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert share_interval(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_mean_has_scipys_t_interval():
    values = np.random.default_rng(0).normal(0.9, 0.1, 17)
    expected = stats.t.interval(0.95, 16, values.mean(), stats.sem(values))
    assert mean_interval(values.sum(), (values**2).sum(), 17) == pytest.approx(expected, abs=1e-9)
    assert mean_interval(0.5, 0.25, 1) is None


def test_the_change_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    samples, tries, covered = 128, 2000, 0
    for _ in range(tries):
        lost, won, _same = random.multinomial(samples, [0.06, 0.03, 0.91])
        low, high = change_interval(lost, won, samples)
        covered += low <= -0.03 <= high
    assert 0.935 < covered / tries < 0.98


@pytest.mark.parametrize(("lost", "won", "pairs"), [(60, 5, 80), (0, 0, 9), (3, 40, 300)])
def test_the_change_interval_is_walds_with_half_a_pair_of_each_kind_more(lost, won, pairs):
    kinds, counts = np.array([-1, 1, 0]), np.array([lost + 0.5, won + 0.5, pairs - lost - won + 1])
    mean = np.average(kinds, weights=counts)
    half = stats.norm.isf(0.025) * np.sqrt(np.average((kinds - mean) ** 2, weights=counts) / counts.sum())
    assert change_interval(lost, won, pairs) == pytest.approx((mean - half, mean + half), abs=1e-9)


def _measured(reference, values, labels):
    metrics = MetricAccumulator(classes=True)
    for at in range(0, len(labels), 32):
        part = slice(at, at + 32)
        metrics.add({"y": reference[part]}, {"y": values[part]}, labels[part])
    return metrics.result()


def test_metrics_carry_intervals_of_top1_and_of_its_change():
    random = np.random.default_rng(2)
    labels = random.integers(0, 4, 100)
    reference = np.eye(4)[labels] + 0.5 * random.standard_normal((100, 4))
    values = reference + 0.2 * random.standard_normal((100, 4))
    metrics = _measured(reference, values, labels)
    before, after = reference.argmax(1) == labels, values.argmax(1) == labels
    assert metrics.interval == share_interval(after.sum(), 100)
    assert metrics.change_interval == change_interval((before & ~after).sum(), (after & ~before).sum(), 100)
    low, high = metrics.change_interval
    assert low <= metrics.quantized - metrics.float_ <= high
    assert high - low < metrics.interval[1] - metrics.interval[0]


def test_tokens_of_one_sample_count_as_one():
    random = np.random.default_rng(3)
    labels = np.repeat(random.integers(0, 3, (40, 1)), 50, axis=1)
    reference = np.eye(3)[labels]
    wrong = random.random(40) < 0.3  # whole samples go wrong, not single tokens
    values = np.where(wrong[:, None, None], 1 - reference, reference)
    metrics = _measured(reference, values, labels)
    low, high = metrics.interval
    assert high - low > 2 * (np.diff(share_interval(metrics.quantized * 2000, 2000))[0])
    assert low < 0.7 < high
