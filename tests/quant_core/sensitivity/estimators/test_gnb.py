from typing import Any

import numpy as np
import pytest
import torch

from quant_core.sensitivity import Objective, Term, gauss_newton_exact, split_batches
from quant_core.sensitivity.curvature.probes import probe_generator, sampled_score
from quant_core.sensitivity.estimators.gnb import gnb, gnb_diagonal
from tests.quant_core.sensitivity.estimators.standard_errors import POPULATION, error_over_stderr

KL = Objective((Term("y", "y", "kl"),))
SQUARED = Objective((Term("y", "y", "squared_error"),))


def batches(x: torch.Tensor, clusters: int = 32) -> Any:
    return split_batches({"x": x}, None, sample_bytes=1, seed=0, clusters=clusters)


@pytest.mark.parametrize("kind", ["cross_entropy", "squared_error"])
def test_the_diagonal_is_that_of_curvlinops_gauss_newton_matrix(
    tiny: Any, samples: torch.Tensor, gauss_newton_matrix: Any, kind: str
) -> None:
    net = tiny("Tanh")
    x = samples[:12]
    dense = gauss_newton_matrix(net, x, kind)
    objective = KL if kind == "cross_entropy" else SQUARED
    runs = [
        gnb_diagonal(net.program, net.layers, objective, batches(x, 1), seed=seed, sweeps=40)
        for seed in range(25)
    ]
    for name in ("one", "two"):
        values = torch.stack([run[name] for run in runs]).double().numpy()
        error = values.std(axis=0, ddof=1) / 5
        off = (values.mean(axis=0) - dense[name].diagonal().reshape(error.shape)) / error
        assert np.abs(off).max() < 4
        assert (error < 0.1 * values.mean(axis=0)).all()


@pytest.mark.parametrize("objective", [KL, SQUARED])
def test_traces_are_those_of_the_exact_gauss_newton_matrix(
    tiny: Any, samples: torch.Tensor, objective: Objective
) -> None:
    net = tiny("Tanh")
    exact = gauss_newton_exact(net.program, net.layers, objective, batches(samples)).trace
    found = gnb(net.program, net.layers, objective, batches(samples), seed=0, tolerance=0, max_probes=960)
    assert (np.abs(found.trace - exact) < 3 * found.stderr).all()
    assert (found.stderr < 0.2 * exact).all()


def test_standard_errors_are_honest_over_samples_and_labels(tiny: Any) -> None:
    net = tiny("Relu", seed=2)
    target = net.forward(POPULATION, net.weights).softmax(-1)
    exact = net.exact_traces(lambda z: -(target * z.log_softmax(-1)).sum(-1).mean(), POPULATION)

    def traces(x: torch.Tensor, seed: int) -> Any:
        found = gnb(net.program, net.layers, KL, batches(x), seed=seed, tolerance=0, max_probes=32)
        return found.trace, found.stderr

    spread = error_over_stderr(exact, traces, drawn=192)
    assert (spread > 0.8).all()
    assert (spread < 1.35).all()


def test_scores_have_mean_zero_and_the_hessian_as_their_second_moment() -> None:
    term = Term("y", "y", "kl", weight=2.0)
    rows = torch.tensor([[[0.5, -1.0, 2.0, 0.0], [3.0, 0.0, 0.0, 1.0]]])
    many = rows.expand(40000, 2, 4)
    scores = sampled_score(term, many, probe_generator(0, 0)).flatten(1).double()
    p = rows.double().softmax(-1)[0]
    exact = torch.block_diag(*[torch.diag(q) - torch.outer(q, q) for q in p])  # weight 2 over 2 positions
    np.testing.assert_allclose(scores.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(scores.T @ scores / 40000, exact, atol=0.01)


def test_same_seed_same_traces(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    runs = [
        gnb(net.program, net.layers, KL, batches(samples), seed=seed, max_probes=30).trace
        for seed in (7, 7, 8)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()
