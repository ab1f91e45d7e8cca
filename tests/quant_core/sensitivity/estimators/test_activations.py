from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import compile_model
from quant_core.ingest.layer import Layer, Use
from quant_core.sensitivity import Objective, Term, split_batches
from quant_core.sensitivity.estimators.activations import (
    activation_errors,
    activation_scores,
    activation_traces,
)

KL = Objective((Term("y", "y", "kl"),))
SQUARED = Objective((Term("y", "y", "squared_error"),))
LABELLED = Objective((Term("y", "y", "cross_entropy"),))


def batches(x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
    return split_batches({"x": x}, labels, sample_bytes=1, seed=0)


def exact_traces(net: Any, loss: Any, x: torch.Tensor) -> np.ndarray:
    """Mean over samples of the trace of each sample's dense Hessian in x and in the second layer's input."""
    weights = net.weights
    first = weights["one"].double()
    bias = net.program.weights["bias"].double()
    nonlinear = torch.relu if "Relu" in str(net.model.graph) else torch.tanh
    traces = []
    for n, sample in enumerate(x.double()):
        h = nonlinear(sample @ first + bias)
        ways = (
            (sample, lambda a: net.forward(a[None], weights)[0]),
            (h, lambda a: a @ weights["two"].double()),
        )
        hessians = [
            torch.autograd.functional.hessian(lambda a, f=f, n=n: loss(f(a), n), place) for place, f in ways
        ]
        traces.append([float(matrix.trace()) for matrix in hessians])
    return np.mean(traces, axis=0)


def divergence(net: Any, x: torch.Tensor) -> Any:
    targets = net.forward(x, net.weights).softmax(-1)
    return lambda z, n: -(targets[n] * z.log_softmax(-1)).sum()


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_traces_of_the_divergence_are_those_of_each_sample(
    tiny: Any, samples: torch.Tensor, activation: str, curvature: Any
) -> None:
    net = tiny(activation)
    exact = exact_traces(net, divergence(net, samples), samples)
    found = activation_traces(
        net.program,
        net.layers,
        KL,
        batches(samples),
        seed=0,
        curvature=curvature,
        tolerance=0,
        max_probes=320,
    )
    assert found.tensors == ("x", "h")
    assert found.elements == (5, 6)
    assert (np.abs(found.trace - exact) < 3 * found.stderr).all()
    assert (found.stderr < 0.2 * exact).all()


def test_the_full_hessian_holds_the_bend_of_the_layers_behind(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    labels = torch.arange(96) % 3
    exact = exact_traces(
        net, lambda z, n: torch.nn.functional.cross_entropy(z[None], labels[n : n + 1]), samples
    )
    flat = exact_traces(net, divergence(net, samples), samples)
    found = activation_traces(
        net.program,
        net.layers,
        LABELLED,
        batches(samples, labels),
        seed=0,
        curvature="hessian",
        tolerance=0,
        max_probes=640,
    )
    assert (np.abs(found.trace - exact) < 3 * found.stderr).all()
    assert abs(flat[0] - exact[0]) > 3 * found.stderr[0]


def test_a_probe_of_one_output_is_exact(tiny: Any, samples: torch.Tensor) -> None:
    # 1/2 ||x W - z||^2 with W [5, 1]: the only sign cancels in the square, so H_a = W W^T at once.
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        line (float[N, 5] x) => (float[N, 1] y)
        <float[5, 1] w = {1.0, -2.0, 0.5, 0.0, 3.0}>
        { y = MatMul(x, w) }
        """
    )
    layers = (Layer("line", "MatMul", "w", (5, 1), 1, (Use("line", "MatMul", "x", "y", 1),)),)
    found = activation_traces(
        compile_model(model), layers, SQUARED, batches(samples), seed=0, max_probes=32, tolerance=0
    )
    assert found.trace == pytest.approx(1 + 4 + 0.25 + 9)


def test_the_score_is_the_loss_of_noise_in_an_activation(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    step = 0.05

    def rounding(value: torch.Tensor) -> torch.Tensor:
        return (value / step).round() * step

    found = activation_traces(net.program, net.layers, KL, batches(samples), seed=0, tolerance=0.03)
    errors = activation_errors(net.program, batches(samples), {"x": rounding})
    assert errors == pytest.approx(
        {"x": float((rounding(samples) - samples).square().sum(1).mean())}, rel=1e-5
    )
    scores = activation_scores(found, net.layers, errors)
    assert scores[1] == 0
    reference = net.forward(samples, net.weights)
    rounded = net.forward(rounding(samples), net.weights)
    target = reference.softmax(-1)
    loss = float((target * (target.log() - rounded.log_softmax(-1))).sum(-1).mean())
    # HAWQ-V2's score has no factor 1/2.
    assert scores[0] / 2 == pytest.approx(loss, rel=0.25)


def test_rows_of_a_table_are_no_activations_and_shared_weights_add_their_tensors() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        words (int64[N, 2] ids) => (float[N, 2, 3] y)
        <float[4, 3] table = {1.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.3, 0.2, 1.0, 1.0, 1.0, 1.0},
         float[3, 3] w = {1.0, 0.2, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 1.0}>
        { e = Gather(table, ids)  h = MatMul(e, w)  y = MatMul(h, w) }
        """
    )
    layers = (
        Layer("table", "Gather", "table", (4, 3), 0, (Use("table", "Gather", "ids", "e", 0),)),
        Layer(
            "both",
            "MatMul",
            "w",
            (3, 3),
            1,
            (Use("a", "MatMul", "e", "h", 1), Use("b", "MatMul", "h", "y", 1)),
        ),
    )
    ids = torch.tensor([[0, 1], [2, 3], [1, 1], [3, 0]])
    found = activation_traces(
        compile_model(model),
        layers,
        SQUARED,
        split_batches({"ids": ids}, None, sample_bytes=1, seed=0, clusters=1),
        seed=0,
        tolerance=0,
        max_probes=400,
    )
    assert found.tensors == ("e", "h")
    w = torch.tensor([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]])
    exact = [2 * float((w @ w).square().sum()), 2 * float(w.square().sum())]  # two words a sample
    assert (np.abs(found.trace - exact) < 3 * found.stderr + 1e-6).all()
    trace, stderr = found.of_layers(layers)
    assert np.isnan(trace[0])
    assert trace[1] == found.trace.sum()
    assert stderr[1] == found.stderr.sum()


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_what_the_loss_does_not_read_has_no_trace(samples: torch.Tensor, curvature: Any) -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        two (float[N, 5] x, int64[N] ids) => (float[N, 1] y, float[N, 1] other, float[N, 2] z)
        <float[5, 1] w = {1.0, -2.0, 0.5, 0.0, 3.0}, float[1, 1] v = {2.0}, float[2, 2] table = {1.0, 2.0, 3.0, 4.0}>
        { y = MatMul(x, w)  h = Relu(y)  other = MatMul(h, v)  z = Gather(table, ids) }
        """
    )
    program = compile_model(model)
    layers = (
        Layer("line", "MatMul", "w", (5, 1), 1, (Use("line", "MatMul", "x", "y", 1),)),
        Layer("unread", "MatMul", "v", (1, 1), 1, (Use("unread", "MatMul", "h", "other", 1),)),
    )
    table = Layer("table", "Gather", "table", (2, 2), 0, (Use("table", "Gather", "ids", "z", 0),))
    feeds = {"x": samples, "ids": torch.zeros(len(samples), dtype=torch.int64)}
    some = split_batches(feeds, None, sample_bytes=1, seed=0)
    how: dict[str, Any] = {"seed": 0, "curvature": curvature, "max_probes": 32, "tolerance": 0}
    found = activation_traces(program, layers, SQUARED, some, **how)
    assert found.tensors == ("x", "h")
    assert abs(found.trace[0] - (1 + 4 + 0.25 + 9)) < 3 * found.stderr[0] + 1e-4
    assert (found.trace[1], found.stderr[1]) == (0, 0)
    none = activation_traces(program, [table], SQUARED, some, **how)
    assert (none.tensors, none.trace.shape) == ((), (0,))


def test_a_tensor_that_is_not_finite_leaves_the_others_usable(
    tiny: Any, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quant_core.sensitivity.estimators import activations

    net = tiny("Relu")
    how: dict[str, Any] = {"seed": 0, "max_probes": 16, "tolerance": 0}
    plain = activation_traces(net.program, net.layers, KL, batches(samples), **how)
    gradient = activations.random_gradient
    monkeypatch.setattr(
        activations,
        "random_gradient",
        lambda *given: tuple(g * torch.inf if g.shape[1] == 5 else g for g in gradient(*given)),
    )
    broken = activation_traces(net.program, net.layers, KL, batches(samples), **how)
    assert np.isnan([broken.trace[0], broken.stderr[0]]).all()
    assert broken.trace[1] == plain.trace[1]
    assert broken.stderr[1] == plain.stderr[1]
