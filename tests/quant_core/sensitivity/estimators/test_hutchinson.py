from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.errors import UnsupportedOperatorError
from quant_core.executor import compile_model
from quant_core.ingest.layer import Layer, Use
from quant_core.sensitivity import Objective, Term, hawq_v2, split_batches
from tests.quant_core.sensitivity.estimators.standard_errors import POPULATION, error_over_stderr

SQUARED = Objective((Term("y", "y", "squared_error"),))


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_traces_are_those_of_the_exact_hessian_with_labels(
    tiny: Any, samples: torch.Tensor, activation: str
) -> None:
    net = tiny(activation)
    labels = torch.arange(96) % 3
    exact = net.exact_traces(lambda z: torch.nn.functional.cross_entropy(z, labels), samples)
    batches = split_batches({"x": samples}, labels, sample_bytes=1, seed=0)
    objective = Objective((Term("y", "y", "cross_entropy"),))
    estimate = hawq_v2(net.program, net.layers, objective, batches, seed=2, tolerance=0, max_probes=288)
    assert (np.abs(estimate.trace - exact) < 3 * estimate.stderr).all()
    assert (estimate.stderr < exact.max()).all()


def test_standard_errors_are_honest_over_samples_and_probes(tiny: Any) -> None:
    net = tiny("Tanh", seed=4)
    target = net.forward(POPULATION, net.weights).softmax(-1)
    exact = net.exact_traces(lambda z: -(target * z.log_softmax(-1)).sum(-1).mean(), POPULATION)
    objective = Objective((Term("y", "y", "kl"),))

    def traces(x: torch.Tensor, seed: int) -> Any:
        batches = split_batches({"x": x}, None, sample_bytes=1, seed=0, clusters=48)
        found = hawq_v2(net.program, net.layers, objective, batches, seed=seed, tolerance=0, max_probes=48)
        return found.trace, found.stderr

    spread = error_over_stderr(exact, traces, drawn=192)
    assert (spread > 0.8).all()
    assert (spread < 1.3).all()


def test_a_layer_that_is_not_finite_leaves_the_others_usable(samples: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    shapes = {"first": (5, 6), "bad": (6, 6), "last": (6, 3)}
    stored = ", ".join(
        f"float[{rows}, {columns}] {name} = {{{', '.join(map(repr, rng.normal(0, 0.5, rows * columns).tolist()))}}}"
        for name, (rows, columns) in shapes.items()
    )
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[N, 5] x) => (float[N, 3] y) <{stored}>
    {{
        a = MatMul(x, first)
        h = Relu(a)
        b = MatMul(h, bad)
        zero = Sub(b, b)
        root = Sqrt(zero)
        t = Add(h, root)
        y = MatMul(t, last)
    }}
    """
    ends = (("first", "x", "a"), ("bad", "h", "b"), ("last", "t", "y"))
    layers = [
        Layer(name, "MatMul", name, shapes[name], 1, (Use(name, "MatMul", read, written, 1),))
        for name, read, written in ends
    ]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0)
    program = compile_model(ir.from_onnx_text(text))
    found = hawq_v2(program, layers, SQUARED, batches, seed=0, tolerance=0, max_probes=64)
    assert np.isnan(found.trace[:2]).all()
    exact = 3 * float((samples @ program.weights["first"]).relu().square().sum(-1).mean())
    assert abs(found.trace[2] - exact) < 3 * found.stderr[2]


def test_an_operator_without_second_derivative_is_named(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    net = tiny("Relu")

    class OnceOnly(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("the derivative for 'hardsigmoid_backward' is not implemented.")
            return grads[0]

    evaluate = net.program.evaluate

    def through_once_only(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return {name: OnceOnly.apply(value) for name, value in evaluate(*args, **kwargs).items()}

    monkeypatch.setattr(net.program, "evaluate", through_once_only)
    batches = split_batches({"x": torch.ones(4, 5)}, None, sample_bytes=1, seed=0)
    with pytest.raises(UnsupportedOperatorError, match=r"hardsigmoid has no second derivative.*gauss_newton"):
        hawq_v2(net.program, net.layers, Objective((Term("y", "y", "kl"),)), batches, seed=0)


def test_a_loss_linear_in_the_weights_of_a_layer_has_trace_zero() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        lonely (float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] used = {1.0, 0.5, -0.25, 2.0}, float[2, 2] unused = {1.0, 0.0, 0.0, 1.0}>
        { y = MatMul(x, used)  s = MatMul(x, unused) }
        """
    )
    layers = [
        Layer(name, "MatMul", name, (2, 2), 1, (Use(name, "MatMul", "x", out, 1),))
        for name, out in (("used", "y"), ("unused", "s"))
    ]
    batches = split_batches({"x": torch.ones(4, 2)}, None, sample_bytes=1, seed=0)
    objective = Objective((Term("y", "y", "squared_error"),))
    estimate = hawq_v2(compile_model(model), layers, objective, batches, seed=0, max_probes=64, tolerance=0)
    # The Hessian of 1/2 ||x W - y||^2 in W is the identity times x x^T: trace 2 * ||x||^2 = 4.
    assert estimate.trace[0] == pytest.approx(4, abs=3 * estimate.stderr[0] + 1e-6)
    assert estimate.trace[1] == 0
