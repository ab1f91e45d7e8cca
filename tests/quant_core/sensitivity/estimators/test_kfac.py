import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest
import torch
from scipy.stats import spearmanr

from quant_core.executor import Program, compile_model
from quant_core.ingest import find_layers
from quant_core.ingest.layer import Layer
from quant_core.sensitivity import Objective, Term, gnb_diagonal, split_batches
from quant_core.sensitivity.estimators.kfac import kfac

KL = Objective((Term("y", "y", "kl"),))
SQUARED = Objective((Term("y", "y", "squared_error"),))
BOTH: list[Any] = ["gradients", "activations"]


def batches(x: torch.Tensor, clusters: int = 8) -> Any:
    return split_batches({"x": x}, None, sample_bytes=1, seed=0, clusters=clusters)


@dataclass(frozen=True)
class Trained:
    """A small convolutional network in torch, trained, and the same as ONNX."""

    net: torch.nn.Module
    program: Program
    layers: tuple[Layer, ...]
    samples: torch.Tensor

    def exact_increase(self, index: int, change: torch.Tensor) -> float:
        """1/2 vec(dW)^T G vec(dW) of the divergence, from one forward derivative of torch's own network."""
        name = [name for name, _ in self.net.named_parameters() if name.endswith("weight")][index]
        weight = self.net.get_parameter(name).detach()

        def run(w: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(self.net, {name: w}, (self.samples,))

        z, dz = torch.autograd.functional.jvp(run, weight, change)
        p = z.detach().softmax(-1)
        return 0.5 * float(((p * dz**2).sum(-1) - (p * dz).sum(-1) ** 2).mean().detach())


@pytest.fixture(scope="module")
def trained() -> Trained:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.nn.functional.avg_pool2d(2 * torch.randn(6, 1, 8, 8, generator=generator), 3, 1, 1)
    labels = torch.randint(0, 6, (2300,), generator=generator)
    noisy = shapes[labels] + 0.7 * torch.randn(2300, 1, 8, 8, generator=generator)
    images = torch.nn.functional.avg_pool2d(noisy, 2, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, stride=2, groups=2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 12, 1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(108, 16),
            torch.nn.ReLU(),
            torch.nn.Linear(16, 6),
        )
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(300):
        drawn = torch.randint(0, 2000, (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(net(images[drawn]), labels[drawn])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float((net(images[2000:]).argmax(-1) == labels[2000:]).float().mean()) > 0.95
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[N, 1, 7, 7] x) => (float[N, 6] y)
    <float[8, 1, 3, 3] w0, float[8] b0, float[8, 4, 3, 3] w1, float[8] b1, float[12, 8, 1, 1] w2, float[12] b2,
     float[16, 108] w3, float[16] b3, float[6, 16] w4, float[6] b4>
    {
        a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
        ar = Relu (a)
        c = Conv <strides = [2, 2], group = 2> (ar, w1, b1)
        cr = Relu (c)
        d = Conv (cr, w2, b2)
        dr = Relu (d)
        f = Flatten (dr)
        e = Gemm <transB = 1> (f, w3, b3)
        er = Relu (e)
        y = Gemm <transB = 1> (er, w4, b4)
    }
    """
    values = {f"{'wb'[k % 2]}{k // 2}": p.detach() for k, p in enumerate(net.parameters())}
    filled = re.sub(
        r"(?<=\] )([wb]\d)",
        lambda name: f"{name[1]} = {{{', '.join(repr(float(v)) for v in values[name[1]].flatten())}}}",
        text,
    )
    model = ir.from_onnx_text(filled)
    program, samples = compile_model(model), images[2000:2256]
    torch.testing.assert_close(program.evaluate({"x": samples})["y"], net(samples).detach())
    return Trained(net, program, find_layers(model), samples)


def changes(weight: torch.Tensor, bits: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Ways to round a weight, and noise of the same size."""
    step = float(weight.abs().max()) / (2 ** (bits - 1) - 1)
    each = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.dim() - 1)) / (2 ** (bits - 1) - 1)
    dither = torch.rand(weight.shape, generator=generator) - 0.5
    return [
        (weight / step).round() * step - weight,
        (weight / each).round() * each - weight,
        (weight / step).trunc() * step - weight,
        (weight / step + dither).round() * step - weight,
        step / 12**0.5 * torch.randn(weight.shape, generator=generator),
    ]


def test_ranks_changes_of_a_trained_net_better_than_the_diagonal(trained: Trained) -> None:
    given = batches(trained.samples)
    products = {
        factors: kfac(trained.program, trained.layers, KL, given, seed=0, sweeps=8, factors=factors)
        for factors in BOTH
    }
    diagonal = gnb_diagonal(trained.program, trained.layers, KL, given, seed=0, sweeps=64)
    generator = torch.Generator().manual_seed(3)
    exact: list[float] = []
    predicted: dict[str, list[float]] = {"gradients": [], "activations": [], "diagonal": []}
    for index, layer in enumerate(trained.layers):
        weight = trained.program.weights[layer.weight]
        for bits in (2, 3, 4, 5, 6, 8):
            for change in changes(weight, bits, generator):
                exact.append(trained.exact_increase(index, change))
                predicted["diagonal"].append(0.5 * float((diagonal[layer.weight] * change**2).sum()))
                for factors, found in products.items():
                    predicted[factors].append(found.loss_increase(index, change))
    over_all = {name: spearmanr(exact, values)[0] for name, values in predicted.items()}
    assert over_all["gradients"] > over_all["diagonal"] + 0.005
    # Changes of one layer at one width, which differ in direction more than in size.
    pieces = [slice(start, start + 5) for start in range(0, len(exact), 5)]
    alike = {
        name: np.mean([spearmanr(exact[piece], values[piece])[0] for piece in pieces])
        for name, values in predicted.items()
    }
    assert alike["activations"] > alike["diagonal"] + 0.05
    assert alike["gradients"] > alike["diagonal"] + 0.1
    off = {
        name: np.sqrt(np.mean(np.log(np.array(values) / exact) ** 2)) for name, values in predicted.items()
    }
    assert off["gradients"] < 0.95 * off["diagonal"]


@pytest.mark.parametrize("factors", BOTH)
def test_a_single_sample_and_place_is_exact(tiny: Any, factors: Literal["gradients", "activations"]) -> None:
    # Then G is one Kronecker product; with 3 outputs only the mean over signs is left to noise.
    net = tiny("Relu")
    x = torch.tensor([[0.3, -1.0, 0.5, 2.0, 0.1]])
    found = kfac(net.program, net.layers, SQUARED, batches(x), seed=0, sweeps=600, factors=factors)
    for index, name in enumerate(net.weights):
        change = torch.randn(net.weights[name].shape, generator=torch.Generator().manual_seed(index))

        def run(w: torch.Tensor, name: str = name) -> torch.Tensor:
            return net.forward(x, {**net.weights, name: w})

        _, dz = torch.autograd.functional.jvp(run, net.weights[name].double(), change.double())
        assert found.loss_increase(index, change) == pytest.approx(0.5 * float(dz.square().sum()), rel=0.1)


def test_standard_errors_are_the_spread_over_other_samples(tiny: Any) -> None:
    net = tiny("Tanh")
    generator = torch.Generator().manual_seed(2)
    draws = [torch.randn(64, 5, generator=generator) for _ in range(20)]
    found = [
        kfac(net.program, net.layers, KL, batches(x), seed=seed, sweeps=1) for seed, x in enumerate(draws)
    ]
    spread = np.std([draw.trace for draw in found], axis=0, ddof=1)
    stated = np.mean([draw.stderr for draw in found], axis=0)
    assert ((stated / spread > 0.5) & (stated / spread < 2)).all()


def test_factors_are_moments_of_inputs_and_of_output_gradients(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Tanh")
    found = kfac(net.program, net.layers, KL, batches(samples), seed=0, sweeps=200, factors="activations")
    first, second = found.pairs[0][0], found.pairs[1][0]
    torch.testing.assert_close(first.inputs[0], samples.T @ samples / 96)
    p = net.forward(samples, net.weights).softmax(-1)
    exact = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mean(0)
    np.testing.assert_allclose(second.outputs[0], exact, atol=0.02)


def numbers(*shape: int) -> str:
    values = np.random.default_rng(len(shape)).normal(size=shape).round(3)
    return f"{{{', '.join(str(v) for v in values.ravel())}}}"


@pytest.mark.parametrize("factors", BOTH)
def test_tables_and_shared_weights(factors: Literal["gradients", "activations"]) -> None:
    model = ir.from_onnx_text(
        f"""
        <ir_version: 10, opset_import: ["" : 21]>
        words (int64[N, 2] ids) => (float[N, 2, 3] y)
        <float[4, 3] table = {numbers(4, 3)}, float[3, 3] w = {numbers(3, 3, 1)}>
        {{ e = Gather (table, ids)  h = MatMul (e, w)  y = MatMul (h, w) }}
        """
    )
    program, layers = compile_model(model), find_layers(model)
    ids = torch.tensor([[0, 1], [-1, 3], [1, 1], [3, 0]])
    given = split_batches({"ids": ids}, None, sample_bytes=1, seed=0, clusters=1)
    found = kfac(program, layers, SQUARED, given, seed=0, sweeps=200, factors=factors)
    assert [len(pairs) for pairs in found.pairs] == ([1, 1] if factors == "gradients" else [1, 2])
    table = layers[0].weight
    # Row 2 is never read; the others count as often as they are.
    change = torch.zeros(4, 3)
    change[2] = 1
    assert found.loss_increase(0, change) == 0
    w = program.weights["w"]
    for row, count in ((0, 2), (1, 3), (3, 3)):
        change = torch.zeros(4, 3)
        change[row, 1] = 1
        exact = 0.5 * count / 4 * float((w @ w)[1].square().sum())
        assert found.loss_increase(0, change) == pytest.approx(exact, rel=0.15)
    assert table == "table"
    change = torch.eye(3)
    outputs = [program.evaluate({"ids": ids}, weights={"w": w + e * change})["y"] for e in (0.01, -0.01)]
    exact = 0.5 * float(((outputs[0] - outputs[1]) / 0.02).square().sum()) / 4
    assert found.loss_increase(1, change) == pytest.approx(exact, rel=0.6)


@pytest.mark.parametrize("factors", BOTH)
def test_a_layer_that_is_not_finite_leaves_the_others_usable(
    tiny: Any,
    samples: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    factors: Literal["gradients", "activations"],
) -> None:
    from quant_core.sensitivity.estimators import kfac as module

    net = tiny("Relu")

    def increases() -> list[float]:
        found = kfac(net.program, net.layers, KL, batches(samples), seed=0, factors=factors)
        return [found.loss_increase(k, weight) for k, weight in enumerate(net.weights.values())]

    plain = increases()
    drawn: Callable[..., Any] = module.random_gradient
    monkeypatch.setattr(
        module,
        "random_gradient",
        lambda *given: tuple(g * torch.inf if g.shape[0] == 5 else g for g in drawn(*given)),
    )
    broken = increases()
    assert np.isnan(broken[0])
    assert broken[1] == plain[1]


def test_a_layer_without_influence_costs_nothing_and_one_read_both_ways_has_one_product() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        both (float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}, float[2, 2] idle = {1.0, 0.0, 0.0, 1.0}>
        { h = Gemm (x, w)  y = Gemm <transB = 1> (h, w)  s = MatMul (x, idle) }
        """
    )
    program, layers = compile_model(model), find_layers(model)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Any] = {
        factors: kfac(program, layers, SQUARED, batches(x), seed=0, factors=factors) for factors in BOTH
    }
    change = torch.ones(2, 2)
    assert [found.loss_increase(1, change) for found in ways.values()] == [0, 0]
    assert ways["gradients"].loss_increase(0, change) > 0
    assert np.isnan(ways["activations"].loss_increase(0, change))
