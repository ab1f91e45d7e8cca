from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn.functional import cross_entropy

from quant_core.errors import CancelledError, NonFiniteError
from quant_core.executor import compile_model
from quant_core.sensitivity import Objective, Term, output, split_batches
from quant_core.sensitivity.estimators.path_integral import pqi, pqi_elements
from tests.quant_core.sensitivity.estimators.standard_errors import POPULATION, error_over_stderr

LABELS = Objective((Term("y", "y", "cross_entropy"),))
KL = Objective((Term("y", "y", "kl"),))


@pytest.fixture(scope="module")
def trained(tiny: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A network that fits three clusters of points almost perfectly, as trained networks do."""
    net = tiny("Tanh")
    generator = torch.Generator().manual_seed(8)
    labels = torch.arange(300) % 3
    x = (2 * torch.randn(3, 5, generator=generator))[labels] + torch.randn(300, 5, generator=generator)
    weights = {name: weight.double().requires_grad_() for name, weight in net.weights.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        cross_entropy(net.forward(x, weights), labels).backward()
        optimizer.step()
    model = net.model.clone()
    for name, weight in weights.items():
        model.graph.initializers[name].const_value = ir.Tensor(weight.detach().float().numpy(), name=name)
    fitted = replace(net, model=model, program=compile_model(model))
    assert float(cross_entropy(fitted.forward(x, fitted.weights), labels)) < 0.01
    return fitted, x, labels


def taylor(
    net: Any, x: torch.Tensor, labels: torch.Tensor, ends: dict[str, torch.Tensor]
) -> tuple[float, float]:
    """Loss change by the first, and by the first two terms of the Taylor series around the float weights."""

    def loss(t: torch.Tensor) -> torch.Tensor:
        moved = {
            name: net.weights[name].double() + t * (end - net.weights[name]) for name, end in ends.items()
        }
        return cross_entropy(net.forward(x, {**net.weights, **moved}), labels)

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(t), t, create_graph=True)
    (bend,) = torch.autograd.grad(slope, t)
    return float(slope.detach()), float((slope + bend / 2).detach())


def exact(net: Any, x: torch.Tensor, labels: torch.Tensor, ends: dict[str, torch.Tensor]) -> float:
    before = cross_entropy(net.forward(x, net.weights), labels)
    return float(cross_entropy(net.forward(x, {**net.weights, **ends}), labels) - before)


def test_eight_gradients_are_within_2_percent_where_taylor_misses_tenfold(trained: Any, rounded: Any) -> None:
    net, x, labels = trained
    quantized = [[rounded(weight, 2)] for weight in net.weights.values()]
    batches = split_batches({"x": x}, labels, sample_bytes=1, seed=0, clusters=3)
    found = pqi(net.program, net.layers, LABELS, batches, quantized, gradients=8)
    assert found.samples == 300
    for i, name in enumerate(net.weights):
        ends = {name: torch.from_numpy(quantized[i][0].dequantize())}
        truth = exact(net, x, labels, ends)
        first, second = taylor(net, x, labels, ends)
        assert found.increase[i, 0] == pytest.approx(truth, rel=0.02)
        assert abs(first) < truth / 10
        assert abs(second) < truth / 10
    everything = pqi_elements(
        net.program, net.layers, LABELS, batches, [row[0] for row in quantized], gradients=8
    )
    ends = {
        name: torch.from_numpy(row[0].dequantize()) for name, row in zip(net.weights, quantized, strict=True)
    }
    truth = exact(net, x, labels, ends)
    assert everything.increase == pytest.approx(truth, rel=0.02)
    assert max(map(abs, taylor(net, x, labels, ends))) < truth / 10


def test_more_gradients_come_closer(trained: Any, rounded: Any) -> None:
    net, x, labels = trained
    quantized = [[rounded(weight, bits) for bits in (2, 3)] for weight in net.weights.values()]
    batches = split_batches({"x": x}, labels, sample_bytes=1, seed=0, clusters=1)
    measured = output(net.program, net.layers, LABELS, batches, quantized).increase
    errors = [
        np.abs(
            pqi(net.program, net.layers, LABELS, batches, quantized, gradients=count).increase - measured
        ).max()
        for count in (1, 4, 32)
    ]
    assert errors[1] < errors[0] / 5
    assert errors[2] < 1e-5


def test_standard_errors_come_from_the_spread_between_batches(tiny: Any, rounded: Any) -> None:
    net = tiny("Tanh")
    quantized = [[rounded(weight, 3)] for weight in net.weights.values()]
    whole = split_batches({"x": POPULATION}, None, sample_bytes=1, seed=0, clusters=1, largest=2000)
    truth = pqi(net.program, net.layers, KL, whole, quantized, gradients=1).increase

    def increases(x: torch.Tensor, seed: int) -> Any:
        batches = split_batches({"x": x}, None, sample_bytes=1, seed=seed, largest=12)
        found = pqi(net.program, net.layers, KL, batches, quantized, gradients=1)
        return found.increase, found.stderr

    spread = error_over_stderr(truth, increases, drawn=96, draws=24)
    assert (spread > 0.7).all()
    assert (spread < 1.4).all()
    single = pqi(net.program, net.layers, KL, whole[:1], quantized, gradients=1)
    assert np.isnan(single.stderr).all()


def test_contributions_are_products_of_step_and_mean_gradient(trained: Any, rounded: Any) -> None:
    net, x, labels = trained
    quantized = [rounded(weight, 3) for weight in net.weights.values()]
    batches = split_batches({"x": x}, labels, sample_bytes=1, seed=0, largest=70, clusters=1)
    found = pqi_elements(net.program, net.layers, LABELS, batches, quantized, gradients=32)
    start = {name: weight.double() for name, weight in net.weights.items()}
    steps = {
        name: torch.from_numpy(q.dequantize()) - start[name]
        for (name, q) in zip(start, quantized, strict=True)
    }
    points = 400
    for name in start:
        total = torch.zeros_like(start[name])
        for point in range(points):
            at = {n: (w + (point + 0.5) / points * steps[n]).requires_grad_() for n, w in start.items()}
            (gradient,) = torch.autograd.grad(cross_entropy(net.forward(x, at), labels), at[name])
            total += gradient / points
        torch.testing.assert_close(found.parts[name], steps[name] * total, rtol=1e-3, atol=1e-6)
    assert found.samples == 300


def test_what_breaks_is_marked_or_refused(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Relu")
    broken = rounded(net.weights["two"], 4)
    broken.weight[0, 0] = np.inf
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0)
    good = rounded(net.weights["one"], 4)
    found = pqi(net.program, net.layers, KL, batches, [[good], [broken]])
    assert np.isfinite(found.increase[0, 0])
    assert np.isnan(found.increase[1, 0])
    with pytest.raises(NonFiniteError, match="of the way to the rounded weights"):
        pqi_elements(net.program, net.layers, KL, batches, [good, broken])


def test_progress_can_cancel(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Relu")
    weights = [rounded(weight, 4) for weight in net.weights.values()]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0)

    def stop(fraction: float, message: str) -> None:
        raise CancelledError(message)

    with pytest.raises(CancelledError, match="first at 1"):
        pqi(net.program, net.layers, KL, batches, [[weight] for weight in weights], on_progress=stop)
    with pytest.raises(CancelledError, match="16 gradients"):
        pqi_elements(net.program, net.layers, KL, batches, weights, on_progress=stop)
