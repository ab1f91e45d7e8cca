import math

import numpy as np
import pytest
from scipy import stats

from quant_core.trials.bounds import fewest_samples, mean_bound, samples_for, share_bound

RUNS = 2000


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.00625])
def test_a_share_of_equal_events_is_bounded_as_garwood_bounds_a_count(alpha):
    # Of k events that weigh 1 each: the exact Poisson limit, chi2 of 2 (k + 1) degrees of freedom.
    for hits in (0, 1, 7, 40):
        values = np.r_[np.ones(hits), np.zeros(500 - hits)]
        assert share_bound(values, alpha) == pytest.approx(
            stats.chi2.isf(alpha, 2 * hits + 2) / 1000, rel=1e-9
        )


@pytest.mark.parametrize("count", [60, 400])
@pytest.mark.parametrize("share", [0.002, 0.03])
def test_shares_lie_below_their_bound_as_often_as_promised(count, share):
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(RUNS):
        values = (rng.random(count) < share) * rng.beta(1, 4, count)
        missed += share_bound(values, 0.05) < share / 5
    assert missed / RUNS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng: rng.normal(3, 2, 32), 3),
        (lambda rng: -rng.lognormal(0, 1, 64), -math.exp(0.5)),
        (lambda rng: rng.exponential(1, 64), 1),
    ],
)
def test_means_lie_below_their_bound_as_often_as_promised(draw, mean):
    rng = np.random.default_rng(2)
    missed = sum(mean_bound(draw(rng), 0.05) < mean for _ in range(RUNS)) / RUNS
    assert 0.02 < missed <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / RUNS)


def test_skewness_is_what_students_t_misses():
    rng = np.random.default_rng(3)
    missed = plain = 0
    for _ in range(RUNS):
        values = rng.lognormal(0, 1, 64)
        missed += mean_bound(values, 0.05) < math.exp(0.5)
        half = stats.t.isf(0.05, 63) * values.std(ddof=1) / 8
        plain += values.mean() + half < math.exp(0.5)
    assert missed < 0.75 * plain
    assert missed / RUNS < 0.11  # still more than 0.05: 64 values do not know the tail of these


def test_a_skewed_mean_is_bounded_by_halls_transformation():
    values = np.random.default_rng(5).lognormal(0, 1, 20)
    h = stats.skew(values) / math.sqrt(20)
    t = (values.mean() - mean_bound(values, 0.05)) * math.sqrt(20) / values.std(ddof=1)
    assert t + h * t**2 / 3 + h**2 * t**3 / 27 + h / 6 == pytest.approx(stats.t.ppf(0.05, 19), rel=1e-9)


def test_a_symmetric_mean_is_bounded_by_students_t():
    values = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert mean_bound(values, 0.05) == pytest.approx(stats.t.ppf(0.95, 4) * stats.sem(values), rel=1e-9)


def test_equal_values_have_no_error_and_one_value_tells_nothing():
    assert mean_bound(np.full(9, 0.3), 0.05) == pytest.approx(0.3)
    assert mean_bound(np.array([0.3]), 0.05) == math.inf


def test_the_number_of_samples_that_would_do():
    assert fewest_samples(0.005, 0.05 / 8) == math.ceil(math.log(160) / 0.005)
    assert fewest_samples(0, 0.05) == math.inf
    rng = np.random.default_rng(4)
    values = rng.normal(1, 1, 50)
    needed = samples_for(values, float(values.mean()) + 0.1, 0.05, sparse=False)
    assert needed == pytest.approx((1.645 * values.std() / 0.1) ** 2, rel=0.1)
    assert samples_for(values, float(values.mean()) - 0.1, 0.05, sparse=False) is None
    assert samples_for(np.zeros(10), 0.01, 0.05, sparse=True) == pytest.approx(300, rel=0.02)
