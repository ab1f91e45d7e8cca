from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import SpecError
from quant_core.sensitivity import Objective, Term, split_batches
from quant_core.sensitivity.estimators.hutch_pp import hutch_plus_plus
from tests.quant_core.sensitivity.estimators.standard_errors import POPULATION, error_over_stderr

KL = Objective((Term("y", "y", "kl"),))
PRODUCTS = 17


def batches(x: torch.Tensor, clusters: int = 1) -> Any:
    return split_batches({"x": x}, None, sample_bytes=1, seed=0, clusters=clusters, largest=96)


@pytest.fixture(scope="module")
def decaying() -> torch.Tensor:
    """Samples whose features fall off by halves, so that eigenvalues fall by fours."""
    return torch.randn(32, 5, generator=torch.Generator().manual_seed(1)) * 2.0 ** -torch.arange(5)


def hessian(net: Any, x: torch.Tensor) -> np.ndarray:
    """The dense Hessian of the divergence in both layers together: 30 and 18 weights."""
    target = net.forward(x, net.weights).softmax(-1)

    def value(flat: torch.Tensor) -> torch.Tensor:
        weights = {"one": flat[:30].view(5, 6), "two": flat[30:].view(6, 3)}
        return -(target * net.forward(x, weights).log_softmax(-1)).sum(-1).mean()

    flat = torch.cat([weight.flatten() for weight in net.weights.values()]).double()
    return torch.autograd.functional.hessian(value, flat).numpy()


def hutchinson_variance(dense: np.ndarray, *, blocks: bool) -> np.ndarray:
    """Of the mean of PRODUCTS probes with random signs: entries off the diagonal of the block, and beside it."""
    off = (dense - np.diag(dense.diagonal())) ** 2
    inside = np.array([2 * off[:30, :30].sum(), 2 * off[30:, 30:].sum()])
    return (inside + (0 if blocks else off[:30, 30:].sum())) / PRODUCTS


@pytest.mark.parametrize("blocks", [True, False])
def test_no_more_variance_than_hutchinson_at_equal_products(
    tiny: Any, decaying: torch.Tensor, blocks: bool
) -> None:
    net = tiny("Tanh")
    dense = hessian(net, decaying)
    exact = np.array([dense[:30, :30].trace(), dense[30:, 30:].trace()])
    runs = [
        hutch_plus_plus(
            net.program, net.layers, KL, batches(decaying), seed=seed, products=PRODUCTS, blocks=blocks
        )
        for seed in range(60)
    ]
    traces, errors = np.array([run.trace for run in runs]), np.array([run.stderr for run in runs])
    assert (np.abs(traces.mean(axis=0) - exact) < 3 * traces.std(axis=0) / 60**0.5).all()
    variance = np.square(traces - exact).mean(axis=0)
    ratio = variance / hutchinson_variance(dense, blocks=blocks)
    # A variance from 60 runs is known to 18 %.
    assert (ratio < (0.2 if blocks else 1.0)).all()
    assert (np.sqrt((errors**2).mean(axis=0) / variance) > 0.7).all()
    assert (np.sqrt((errors**2).mean(axis=0) / variance) < 1.4).all()
    assert all(run.probes == PRODUCTS for run in runs)
    shares = (traces / traces.sum(axis=1, keepdims=True)).std(axis=0)
    told = np.sqrt(np.mean([run.share_stderr**2 for run in runs], axis=0))
    assert (told / shares > 0.7).all()
    assert (told / shares < 1.4).all()


@pytest.mark.parametrize("blocks", [True, False])
def test_a_subspace_that_holds_everything_gives_the_exact_trace(
    tiny: Any, decaying: torch.Tensor, blocks: bool
) -> None:
    net = tiny("Tanh")
    dense = hessian(net, decaying)
    found = hutch_plus_plus(
        net.program, net.layers, KL, batches(decaying), seed=0, products=3 * 48 + 2, blocks=blocks
    )
    np.testing.assert_allclose(found.trace, [dense[:30, :30].trace(), dense[30:, 30:].trace()], rtol=1e-3)
    assert (found.stderr < 1e-3 * found.trace).all()


def test_directions_that_the_subspace_holds_already_add_nothing_to_a_large_curvature(
    tiny: Any, decaying: torch.Tensor
) -> None:
    """A Relu network is homogeneous: samples and bias times s scale the curvature of squared error by s squared."""
    net, squared = tiny("Relu"), Objective((Term("y", "y", "squared_error"),))

    def trace() -> Any:
        given = batches(decaying * scale)
        return hutch_plus_plus(net.program, net.layers, squared, given, seed=0, products=3 * 48 + 2).trace

    scale = 1.0
    small = trace()
    scale = 2.0**30
    net.program.weights["bias"].mul_(scale)
    np.testing.assert_allclose(trace(), scale**2 * small, rtol=1e-3)


@pytest.mark.slow
def test_standard_errors_hold_the_spread_of_samples(tiny: Any) -> None:
    net = tiny("Relu", seed=2)
    dense = hessian(net, POPULATION)
    exact = np.array([dense[:30, :30].trace(), dense[30:, 30:].trace()])

    def traces(x: torch.Tensor, seed: int) -> Any:
        found = hutch_plus_plus(net.program, net.layers, KL, batches(x, 16), seed=seed, products=26)
        return found.trace, found.stderr

    spread = error_over_stderr(exact, traces, drawn=384, draws=30)
    assert (spread > 0.7).all()
    assert (spread < 1.4).all()


def test_too_little_memory_for_the_subspace_leaves_more_to_the_rest(
    tiny: Any, decaying: torch.Tensor
) -> None:
    net = tiny("Tanh")
    dense = hessian(net, decaying)
    found = hutch_plus_plus(net.program, net.layers, KL, batches(decaying), seed=0, products=40, memory=1)
    assert "40 products, 1 of them" in found.stopped
    assert abs(found.trace[0] - dense[:30, :30].trace()) < 3 * found.stderr[0]


@pytest.mark.parametrize("blocks", [True, False])
def test_a_layer_that_is_not_finite_leaves_the_others_usable(
    tiny: Any, decaying: torch.Tensor, monkeypatch: pytest.MonkeyPatch, blocks: bool
) -> None:
    from quant_core.sensitivity.curvature import hessian as products

    net = tiny("Tanh")
    exact = hessian(net, decaying)[:30, :30].trace()
    bend = products.bend

    def broken(gradients: Any, variables: Any, vectors: Any, *, retain: bool = False) -> Any:
        found = bend(gradients, variables, vectors, retain=retain)
        return tuple(h * torch.inf if h.shape == (6, 3) else h for h in found)

    monkeypatch.setattr(products, "bend", broken)
    found = hutch_plus_plus(
        net.program, net.layers, KL, batches(decaying), seed=0, products=40, blocks=blocks
    )
    assert abs(found.trace[0] - exact) < 3 * found.stderr[0] + 1e-3 * exact
    assert np.isnan([found.trace[1], found.stderr[1], found.share_stderr[1]]).all()


@pytest.mark.parametrize("blocks", [True, False])
def test_a_layer_without_curvature_has_a_trace_of_zero(tiny: Any, blocks: bool) -> None:
    net = tiny("Relu")
    x = torch.zeros(8, 5)
    exact = hessian(net, x)[30:, 30:].trace()
    found = hutch_plus_plus(net.program, net.layers, KL, batches(x), seed=0, products=40, blocks=blocks)
    assert found.trace[0] == found.stderr[0] == 0
    assert abs(found.trace[1] - exact) < 3 * found.stderr[1] + 1e-3 * exact


def test_no_curvature_at_all_is_a_finding(tiny: Any, decaying: torch.Tensor) -> None:
    net = tiny("Relu")
    net.program.weights["bias"].fill_(-100.0)
    found = hutch_plus_plus(net.program, net.layers, KL, batches(decaying), seed=0, products=17)
    for values in (found.trace, found.stderr, found.share_stderr):
        np.testing.assert_array_equal(values, 0)


def test_too_few_products_are_refused(tiny: Any, decaying: torch.Tensor) -> None:
    net = tiny("Relu")
    with pytest.raises(SpecError, match="products"):
        hutch_plus_plus(net.program, net.layers, KL, batches(decaying), seed=0, products=4)


def test_when_time_is_short_the_fewest_products_are_taken(tiny: Any, decaying: torch.Tensor) -> None:
    net = tiny("Tanh")
    exact = hessian(net, decaying)[:30, :30].trace()
    found = hutch_plus_plus(net.program, net.layers, KL, batches(decaying), seed=0, products=40, seconds=1e-9)
    assert found.probes == 5
    assert found.stopped == "5 products, 1 of them for a subspace"
    assert abs(found.trace[0] - exact) < 4 * found.stderr[0]
