"""Activations. Composed from functions whose second derivatives torch knows: `hardsigmoid` has none."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quant_core.executor.node import Node
from quant_core.executor.ops.tracking import differentiated
from quant_core.executor.registry import STEPS, Kernel, Overwriting, direct, operator

direct("Relu", Overwriting(torch.relu, torch.relu_))
direct("Sigmoid", torch.sigmoid)
direct("Softplus", functional.softplus)
direct("Softsign", lambda x: x / (1 + x.abs()))
direct("Mish", functional.mish)
direct("HardSwish", lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1))


@operator("HardSigmoid")
def _hard_sigmoid(node: Node) -> Kernel:
    alpha, beta = node.float("alpha", 0.2), node.float("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


@operator("LeakyRelu")
def _leaky_relu(node: Node) -> Kernel:
    alpha = node.float("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


@operator("Elu")
def _elu(node: Node) -> Kernel:
    alpha = node.float("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


@operator("Celu")
def _celu(node: Node) -> Kernel:
    alpha = node.float("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


@operator("Selu")
def _selu(node: Node) -> Kernel:
    alpha = node.float("alpha", 1.67326319217681884765625)
    gamma = node.float("gamma", 1.05070102214813232421875)
    return lambda x: gamma * functional.elu(x, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Kernel:
    alpha = node.float("alpha", 1.0)
    return lambda x: functional.threshold(x, alpha, 0.0)


@operator("Shrink")
def _shrink(node: Node) -> Kernel:
    lambd, bias = node.float("lambd", 0.5), node.float("bias", 0.0)

    def shrink(x: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))

    return shrink


@operator("Gelu")
def _gelu(node: Node) -> Kernel:
    approximate = node.string("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


@operator("Swish")
def _swish(node: Node) -> Kernel:
    alpha = node.float("alpha", 1.0)
    return functional.silu if math.isclose(alpha, 1.0) else lambda x: x * torch.sigmoid(alpha * x)


@operator("PRelu")
def _prelu(node: Node) -> Kernel:
    # Before opset 7 a slope of one axis runs along the channels.
    channels = node.version < 7

    def prelu(x: Tensor, slope: Tensor) -> Tensor:
        if channels and slope.dim() == 1 and slope.numel() > 1:
            slope = slope.reshape(-1, *(1,) * (x.dim() - 2))
        return torch.where(x < 0, slope * x, x)

    return prelu


@operator("Clip")
def _clip(node: Node) -> Kernel:
    if node.version < 11:
        low, high = node.float("min"), node.float("max")
        return (lambda x: x) if low is None and high is None else (lambda x: torch.clamp(x, low, high))
    lower, upper = node.host(1), node.host(2)

    def clip(
        x: Tensor, low: Tensor | None = None, high: Tensor | None = None, *, over: bool = False
    ) -> Tensor:
        floor = None if low is None else lower.stored(low)
        ceiling = None if high is None else upper.stored(high)
        if (low is None or floor is not None) and (high is None or ceiling is not None):
            if floor is not None and ceiling is not None and x.is_floating_point() and floor <= ceiling:
                # The same values as clamp's, and a gradient in one pass instead of four.
                return functional.hardtanh(x, floor, ceiling, inplace=over)
            return x if low is None and high is None else torch.clamp(x, floor, ceiling)
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return Overwriting(clip, partial(clip, over=True))


def softmax_axes(node: Node) -> tuple[int, bool]:
    """The axis of a softmax, and whether all axes from it on are flattened into one (before opset 13)."""
    flatten = node.version < 13
    return node.int("axis", 1 if flatten else -1), flatten


def _over_axis(function: Kernel, axis: int, flatten: bool) -> Kernel:
    if not flatten:
        return lambda x: function(x, axis)

    def flattened(x: Tensor) -> Any:
        at = axis % max(x.dim(), 1)
        return function(x.reshape(math.prod(x.shape[:at]), -1), 1).reshape(x.shape)

    return flattened


def _guarded_softmax(x: Tensor, axis: int) -> Tensor:
    """A softmax whose rows of minus infinity are NaN, as they must be, without handing NaN to the gradient."""
    if not differentiated(x):
        return torch.softmax(x, axis)
    dead = (x.detach() == -torch.inf).all(axis, keepdim=True)
    return torch.where(dead, torch.nan, torch.softmax(torch.where(dead, 0.0, x), axis))


@operator("Softmax", note="rows masked everywhere get no gradient where the graph replaces their NaN")
def _softmax(node: Node) -> Kernel:
    # A graph that tests or replaces the result has rows that may be masked everywhere.
    guarded = not node.consumers.isdisjoint({"IsNaN", "Where"})
    return _over_axis(_guarded_softmax if guarded else torch.softmax, *softmax_axes(node))


@operator("LogSoftmax")
def _log_softmax(node: Node) -> Kernel:
    return _over_axis(torch.log_softmax, *softmax_axes(node))


@operator("Hardmax", flat=STEPS)
def _hardmax(node: Node) -> Kernel:
    def hardmax(x: Tensor, axis: int) -> Tensor:
        best = x.argmax(axis, keepdim=True)
        return torch.zeros_like(x).scatter(axis, best, 1.0)

    return _over_axis(hardmax, *softmax_axes(node))
