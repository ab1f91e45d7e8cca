"""Tiny networks twice: as ONNX for the estimators, and in plain torch for exact answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import Program, compile_model
from quant_core.ingest.layer import Layer, Use


@dataclass(frozen=True)
class Tiny:
    """A network of two layers on 5 inputs and 3 outputs."""

    model: ir.Model
    program: Program
    layers: tuple[Layer, ...]
    forward: Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {layer.weight: self.program.weights[layer.weight] for layer in self.layers}

    def exact_traces(self, loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> np.ndarray:
        """Trace of the dense Hessian of `loss(outputs)` in each layer's weight."""
        traces = []
        for name, weight in self.weights.items():

            def value(w: torch.Tensor, name: str = name) -> torch.Tensor:
                return loss(self.forward(x, {**self.weights, name: w}))

            hessian = torch.autograd.functional.hessian(value, weight.double())
            traces.append(float(hessian.reshape(weight.numel(), -1).diagonal().sum()))
        return np.array(traces)


def build(activation: str, ending: str = "", seed: int = 0, hidden: int = 6) -> Tiny:
    rng = np.random.default_rng(seed)
    one = rng.normal(0, 0.6, (5, hidden)).astype(np.float32)
    two = rng.normal(0, 0.9 * (6 / hidden) ** 0.5, (hidden, 3)).astype(np.float32)
    bias = rng.normal(0, 0.3, hidden).astype(np.float32)
    last = f"y = {ending}(z)" if ending else "y = Identity(z)"
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    tiny (float[N, 5] x) => (float[N, 3] y)
    <float[5, {hidden}] one = {{{_numbers(one)}}}, float[{hidden}, 3] two = {{{_numbers(two)}}},
     float[{hidden}] bias = {{{_numbers(bias)}}}>
    {{
        m = MatMul(x, one)
        a = Add(m, bias)
        h = {activation}(a)
        z = MatMul(h, two)
        {last}
    }}
    """
    model = ir.from_onnx_text(text)
    layers = (
        Layer("first", "MatMul", "one", (5, hidden), 1, (Use("first", "MatMul", "x", "m", 1),)),
        Layer("second", "MatMul", "two", (hidden, 3), 1, (Use("second", "MatMul", "h", "z", 1),)),
    )
    function = {"Relu": torch.relu, "Tanh": torch.tanh}[activation]
    after = {"": lambda z: z, "Softmax": lambda z: z.softmax(-1), "LogSoftmax": lambda z: z.log_softmax(-1)}[
        ending
    ]

    def forward(x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        w = {name: weight.double() for name, weight in weights.items()}
        return after(function(x.double() @ w["one"] + torch.from_numpy(bias).double()) @ w["two"])

    return Tiny(model, compile_model(model), layers, forward)


def _numbers(values: np.ndarray) -> str:
    return ", ".join(repr(float(v)) for v in values.ravel())


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Tiny]:
    return build


@pytest.fixture(scope="session")
def samples() -> torch.Tensor:
    return torch.randn(96, 5, generator=torch.Generator().manual_seed(5))


@dataclass(frozen=True)
class Given:
    """A weight as a quantizer would hand it over."""

    weight: np.ndarray

    def dequantize(self) -> np.ndarray:
        return self.weight

    def stand_ins(self, weight: str) -> dict[str, np.ndarray]:
        return {weight: self.dequantize()}


@pytest.fixture(scope="session")
def rounded() -> Callable[[torch.Tensor, int], Given]:
    def nearest(weight: torch.Tensor, bits: int) -> Given:
        step = float(weight.abs().max()) / (2 ** (bits - 1) - 1)
        return Given((weight / step).round().numpy() * np.float32(step))

    return nearest


@pytest.fixture(scope="session")
def gauss_newton_matrix() -> Callable[[Tiny, torch.Tensor, str], dict[str, np.ndarray]]:
    def dense(net: Tiny, x: torch.Tensor, kind: str) -> dict[str, np.ndarray]:
        """The Gauss-Newton matrix of each layer as curvlinops computes it, in the layout of the ONNX weight."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own dependencies use what torch deprecates
            from curvlinops import GGNLinearOperator

            module = _Parameters(net)
            if kind == "cross_entropy":
                loss, targets, scale = torch.nn.CrossEntropyLoss(), torch.zeros(len(x), dtype=torch.long), 1.0
            else:
                # Theirs is the mean over samples and outputs of (z - y)^2, ours the sum over outputs of half of it.
                loss, targets, scale = torch.nn.MSELoss(), torch.zeros(len(x), 3, dtype=torch.double), 1.5
            found = {}
            for name in net.weights:
                weight = module.get_parameter(name)
                operator = GGNLinearOperator(
                    module, loss, [weight], [(x, targets)], check_deterministic=False
                )
                found[name] = scale * (operator @ torch.eye(weight.numel(), dtype=weight.dtype)).numpy()
            return found

    return dense


class _Parameters(torch.nn.Module):
    def __init__(self, net: Tiny) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(net.weights["one"].double())
        self.two = torch.nn.Parameter(net.weights["two"].double())
        self._net = net.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._net(x, {"one": self.one, "two": self.two})


@pytest.fixture(scope="session")
def label_gradients() -> Callable[[Tiny, torch.Tensor, torch.Tensor], dict[str, np.ndarray]]:
    def gradients(net: Tiny, x: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        """The gradient of each sample's cross entropy, one sample at a time."""
        rows: dict[str, list[np.ndarray]] = {"one": [], "two": []}
        for sample, label in zip(x, labels, strict=True):
            weights = {name: weight.double().requires_grad_() for name, weight in net.weights.items()}
            loss = torch.nn.functional.cross_entropy(net.forward(sample[None], weights), label[None])
            for name, gradient in zip(
                weights, torch.autograd.grad(loss, list(weights.values())), strict=True
            ):
                rows[name].append(gradient.flatten().numpy())
        return {name: np.stack(found) for name, found in rows.items()}

    return gradients
