from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import CancelledError
from quant_core.sensitivity import Objective, Term, gauss_newton, gauss_newton_exact, split_batches
from tests.quant_core.sensitivity.estimators.standard_errors import POPULATION, error_over_stderr

KL = Objective((Term("y", "y", "kl"),))
SQUARED = Objective((Term("y", "y", "squared_error"),))


def batches(x: torch.Tensor, **how: Any) -> Any:
    return split_batches({"x": x}, None, sample_bytes=1, seed=0, **how)


def divergence(reference: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    target = reference.softmax(-1)
    return lambda z: (target * (target.log() - z.log_softmax(-1))).sum(-1).mean()


def test_relu_traces_are_those_of_the_exact_hessian_of_the_divergence(
    tiny: Any, samples: torch.Tensor
) -> None:
    net = tiny("Relu")
    exact = net.exact_traces(divergence(net.forward(samples, net.weights)), samples)
    estimate = gauss_newton(
        net.program, net.layers, KL, batches(samples), seed=1, tolerance=0, max_probes=480
    )
    assert (np.abs(estimate.trace - exact) < 3 * estimate.stderr).all()
    assert (estimate.stderr < 0.2 * exact).all()
    assert estimate.samples == 96


def test_exact_mode_equals_the_exact_hessian(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    exact = net.exact_traces(divergence(net.forward(samples, net.weights)), samples)
    estimate = gauss_newton_exact(net.program, net.layers, KL, batches(samples))
    np.testing.assert_allclose(estimate.trace, exact, rtol=1e-4)
    assert (estimate.stderr > 0).all()


def test_squared_error_traces_are_exact_too(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    reference = net.forward(samples, net.weights)
    exact = net.exact_traces(lambda z: 0.5 * (z - reference).square().sum(-1).mean(), samples)
    dense = gauss_newton_exact(net.program, net.layers, SQUARED, batches(samples))
    np.testing.assert_allclose(dense.trace, exact, rtol=1e-4)
    estimate = gauss_newton(
        net.program, net.layers, SQUARED, batches(samples), seed=3, tolerance=0, max_probes=480
    )
    assert (np.abs(estimate.trace - exact) < 3 * estimate.stderr).all()


@pytest.mark.parametrize("ending", ["Softmax", "LogSoftmax"])
def test_probabilities_give_the_traces_of_their_logits(tiny: Any, samples: torch.Tensor, ending: str) -> None:
    plain, ended = tiny("Relu"), tiny("Relu", ending)
    read = Objective((Term("y", "y", "kl", probabilities=ending == "Softmax"),))
    expected = gauss_newton_exact(plain.program, plain.layers, KL, batches(samples[:8]))
    found = gauss_newton_exact(ended.program, ended.layers, read, batches(samples[:8]))
    np.testing.assert_allclose(found.trace, expected.trace, rtol=1e-3)


def test_standard_errors_are_honest_over_samples_and_probes(tiny: Any) -> None:
    net = tiny("Relu", seed=2)
    exact = net.exact_traces(divergence(net.forward(POPULATION, net.weights)), POPULATION)

    def traces(x: torch.Tensor, seed: int) -> Any:
        found = gauss_newton(net.program, net.layers, KL, batches(x), seed=seed, tolerance=0, max_probes=24)
        return found.trace, found.stderr

    spread = error_over_stderr(exact, traces, drawn=96)
    assert (spread > 0.8).all()
    assert (spread < 1.3).all()


def test_stops_when_the_shares_are_known(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    estimate = gauss_newton(net.program, net.layers, KL, batches(samples), seed=0, tolerance=0.2)
    assert "every share" in estimate.stopped
    share = estimate.trace / estimate.trace.sum()
    assert (estimate.share_stderr <= 0.2 * share).all()


def test_stops_when_only_samples_are_missing(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    estimate = gauss_newton(net.program, net.layers, KL, batches(samples), seed=0, tolerance=1e-6)
    assert "more samples" in estimate.stopped
    assert estimate.probes < 2000


def test_same_seed_same_traces(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    runs = [
        gauss_newton(net.program, net.layers, KL, batches(samples), seed=seed, max_probes=30).trace
        for seed in (7, 7, 8)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()


def test_progress_can_cancel(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")

    def stop(fraction: float, message: str) -> None:
        raise CancelledError(message)

    with pytest.raises(CancelledError, match="probe 1"):
        gauss_newton(net.program, net.layers, KL, batches(samples), seed=0, on_progress=stop)


def test_a_single_batch_still_has_a_standard_error(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    one = split_batches({"x": samples[:8]}, None, sample_bytes=1, seed=0, fixed=8)
    exact = net.exact_traces(divergence(net.forward(samples[:8], net.weights)), samples[:8])
    estimate = gauss_newton(net.program, net.layers, KL, one, seed=0, max_probes=400, tolerance=0)
    assert (np.abs(estimate.trace - exact) < 3 * estimate.stderr).all()
    assert (estimate.stderr < 0.2 * exact).all()
