import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import CancelledError
from quant_core.sensitivity import Objective, Term, split_batches
from quant_core.sensitivity.estimators.eigenvalues import EigenvalueEstimate, block_order, hawq
from tests.quant_core.sensitivity.estimators.standard_errors import POPULATION, error_over_stderr

KL = Objective((Term("y", "y", "kl"),))
LABELLED = Objective((Term("y", "y", "cross_entropy"),))


def batches(x: torch.Tensor, labels: torch.Tensor | None = None, clusters: int = 3) -> Any:
    return split_batches({"x": x}, labels, sample_bytes=1, seed=0, clusters=clusters)


def blocks(net: Any, loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> list[np.ndarray]:
    """The dense Hessian of each layer's weight."""
    found = []
    for name, weight in net.weights.items():

        def value(w: torch.Tensor, name: str = name) -> torch.Tensor:
            return loss(net.forward(x, {**net.weights, name: w}))

        hessian = torch.autograd.functional.hessian(value, weight.double())
        found.append(hessian.reshape(weight.numel(), -1).numpy())
    return found


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_equals_the_dense_eigenvalues(tiny: Any, samples: torch.Tensor, activation: str) -> None:
    net = tiny(activation)
    labels = torch.arange(96) % 3
    dense = blocks(net, lambda z: torch.nn.functional.cross_entropy(z, labels), samples)
    exact = np.array([np.linalg.eigvalsh(block)[-1] for block in dense])
    found = hawq(net.program, net.layers, LABELLED, batches(samples, labels), seed=0)
    np.testing.assert_allclose(found.eigenvalue, exact, rtol=1e-3)
    assert "converged" in found.stopped
    assert found.samples == 96
    for value, residual, block in zip(found.eigenvalue, found.residual, dense, strict=True):
        assert np.abs(np.linalg.eigvalsh(block) - value).min() <= residual + 1e-5 * value


def test_equals_the_top_eigenvalue_of_curvlinops(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    labels = torch.arange(96) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from curvlinops import HessianLinearOperator

        module = torch.nn.Sequential(
            torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3, bias=False)
        )
        module[0].weight.data = net.weights["one"].T.clone()
        module[0].bias.data = net.program.weights["bias"].clone()
        module[2].weight.data = net.weights["two"].T.clone()
        exact = []
        for weight in (module[0].weight, module[2].weight):
            operator = HessianLinearOperator(
                module, torch.nn.CrossEntropyLoss(), [weight], [(samples, labels)], check_deterministic=False
            )
            matrix = operator @ torch.eye(weight.numel())
            exact.append(float(torch.linalg.eigvalsh(matrix)[-1]))
    found = hawq(net.program, net.layers, LABELLED, batches(samples, labels), seed=0)
    np.testing.assert_allclose(found.eigenvalue, exact, rtol=1e-3)


def test_starting_again_for_want_of_memory_changes_nothing_but_the_number_of_products(
    tiny: Any, samples: torch.Tensor
) -> None:
    net = tiny("Relu")
    free = hawq(net.program, net.layers, KL, batches(samples), seed=0, tolerance=1e-5)
    tight = hawq(
        net.program, net.layers, KL, batches(samples), seed=0, tolerance=1e-5, memory=1, max_iterations=200
    )
    np.testing.assert_allclose(tight.eigenvalue, free.eigenvalue, rtol=1e-4)
    assert tight.products > free.products


@pytest.mark.slow
def test_the_standard_error_is_the_spread_over_samples(tiny: Any) -> None:
    net = tiny("Relu", seed=2)
    target = net.forward(POPULATION, net.weights).softmax(-1)
    dense = blocks(net, lambda z: -(target * z.log_softmax(-1)).sum(-1).mean(), POPULATION)
    exact = np.array([np.linalg.eigvalsh(block)[-1] for block in dense])

    def eigenvalues(x: torch.Tensor, seed: int) -> Any:
        found = hawq(net.program, net.layers, KL, batches(x, clusters=16), seed=seed, tolerance=0.03)
        return found.eigenvalue, found.stderr

    spread = error_over_stderr(exact, eigenvalues, drawn=384)
    assert (spread > 0.6).all()
    assert (spread < 1.5).all()


def test_the_limit_is_told(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    found = hawq(net.program, net.layers, KL, batches(samples), seed=0, tolerance=1e-9, max_iterations=2)
    assert "iteration limit; 2 layers" in found.stopped
    assert (found.residual > 0).all()
    assert found.products == 6


def test_no_iteration_begins_when_time_is_up(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    exact = hawq(net.program, net.layers, KL, batches(samples), seed=0)
    found = hawq(net.program, net.layers, KL, batches(samples), seed=0, seconds=1e-9)
    assert found.stopped == "time limit; 2 layers not converged"
    assert found.products == 4
    assert (found.eigenvalue < exact.eigenvalue).all()
    assert np.isfinite(found.stderr).all()


def test_a_layer_that_is_not_finite_leaves_the_others_usable(
    tiny: Any, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny("Tanh")
    plain = hawq(net.program, net.layers, KL, batches(samples), seed=0)
    from quant_core.sensitivity.curvature import hessian

    bend = hessian.bend

    def broken(gradients: Any, variables: Any, vectors: Any, *, retain: bool = False) -> Any:
        found = bend(gradients, variables, vectors, retain=retain)
        return tuple(h * torch.inf if h.shape == (5, 6) else h for h in found)

    monkeypatch.setattr(hessian, "bend", broken)
    found = hawq(net.program, net.layers, KL, batches(samples), seed=0)
    assert np.isnan([found.eigenvalue[0], found.residual[0], found.stderr[0]]).all()
    assert found.eigenvalue[1] == plain.eigenvalue[1]


def test_progress_rises_and_can_cancel(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    seen: list[float] = []
    hawq(net.program, net.layers, KL, batches(samples), seed=0, on_progress=lambda f, m: seen.append(f))
    assert seen == sorted(seen)
    assert seen[-1] == 1

    def stop(fraction: float, message: str) -> None:
        raise CancelledError(message)

    with pytest.raises(CancelledError, match="sweep 1"):
        hawq(net.program, net.layers, KL, batches(samples), seed=0, on_progress=stop)


def test_order_by_eigenvalue_a_parameter_or_by_what_rounding_costs(tiny: Any) -> None:
    layers = tiny("Relu").layers  # 30 and 18 parameters
    values = np.array([6.0, 4.5])
    estimate = EigenvalueEstimate(values, values * 0, values * 0, 2, 1, "")
    assert block_order(estimate, layers) == (1, 0)
    assert block_order(estimate, layers, [1.0, 1.0]) == (0, 1)
    lost = EigenvalueEstimate(np.array([np.nan, 1.0]), values * 0, values * 0, 2, 1, "")
    assert block_order(lost, layers) == (1, 0)
