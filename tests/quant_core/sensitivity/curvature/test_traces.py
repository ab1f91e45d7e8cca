import numpy as np
import pytest

from quant_core.sensitivity.curvature.traces import average_traces

SIZES = [4] * 40


def noisy(seed: int, samples: float, probes: float) -> list[np.ndarray]:
    """One true value per batch and layer, around 10 and 5."""
    rng = np.random.default_rng(seed)
    truth = np.array([10.0, 5.0]) + samples * rng.normal(size=(len(SIZES), 2))
    return [truth, probes * rng.normal(size=(1000, 2))]


def test_the_standard_error_holds_both_kinds_of_spread() -> None:
    errors = []
    for seed in range(150):
        truth, noise = noisy(seed, 1.0, 2.0)
        found = average_traces(lambda b, p, t=truth, n=noise: t[b] + n[p], SIZES, tolerance=0, max_probes=80)
        errors.append((found.trace - [10, 5]) / found.stderr)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors), axis=0)), 1, atol=0.15)


def test_errors_of_shares_leave_out_what_layers_have_in_common() -> None:
    rng = np.random.default_rng(0)
    common = rng.lognormal(0, 1, len(SIZES))
    found = average_traces(
        lambda b, p: np.array([10.0, 5.0]) * common[b], SIZES, tolerance=0.01, max_probes=400
    )
    assert found.probes == 16
    assert found.samples == 64
    assert "every share" in found.stopped
    assert (found.stderr > 0.1 * found.trace).all()
    assert (found.share_stderr < 1e-9).all()


def test_a_layer_that_is_not_finite_is_left_out() -> None:
    truth, noise = noisy(0, 0.5, 0.5)

    def probe(batch: int, number: int) -> np.ndarray:
        return np.append(truth[batch] + noise[number], np.inf if number == 3 else 1.0)

    found = average_traces(probe, SIZES, tolerance=0.05, max_probes=200)
    assert np.isfinite(found.trace[:2]).all()
    assert np.isfinite(found.stderr[:2]).all()
    assert np.isnan(found.trace[2])
    assert "every share" in found.stopped


def test_traces_of_zero_are_known_at_once() -> None:
    found = average_traces(lambda b, p: np.zeros(3), SIZES, tolerance=0.05, max_probes=200)
    assert found.probes == 16
    np.testing.assert_array_equal(found.trace, 0)
    np.testing.assert_array_equal(found.stderr, 0)


@pytest.mark.parametrize("limit", [1, 7])
def test_the_limit_holds(limit: int) -> None:
    truth, noise = noisy(1, 1.0, 1.0)
    found = average_traces(lambda b, p: truth[b] + noise[p], SIZES, tolerance=0.001, max_probes=limit)
    assert found.probes == limit
    assert "probe limit" in found.stopped


def test_progress_rises_to_the_end() -> None:
    truth, noise = noisy(2, 1.0, 3.0)
    seen: list[float] = []
    average_traces(
        lambda b, p: truth[b] + noise[p],
        SIZES,
        tolerance=0.03,
        max_probes=500,
        on_progress=lambda fraction, message: seen.append(fraction),
    )
    assert seen == sorted(seen)
    assert seen[0] >= 0
    assert seen[-1] <= 1
